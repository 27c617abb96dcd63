//! The flags that bound what a script may take.

use clap::{Args, value_parser};

use crate::probe::script::{LEAST_MEMORY, LEAST_OPEN_FILES, Limits};

/// What a script may take of the machine; the kernel keeps these limits, of each process of a script.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of a script")]
pub struct ScriptLimitArgs {
    /// Seconds of CPU time that a process of a script may use, 1-86400 [default: no limit but the timeout]
    #[arg(
        long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=86_400),
        env = "HEALTHCHECK_OPERATOR_SCRIPT_CPU_SECONDS"
    )]
    script_cpu_seconds: Option<u64>,
    /// Memory that a process of a script may write to, such as 64Mi, at least 16Mi [default: what the container has]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory, env = "HEALTHCHECK_OPERATOR_SCRIPT_MEMORY")]
    script_memory: Option<u64>,
    /// Processes and threads of the runner's user, the runner's own included, 16-1000000; on a node where other pods
    /// have the same user id, theirs count too [default: what the container may have]
    #[arg(
        long, value_name = "N", value_parser = value_parser!(u64).range(16..=1_000_000),
        env = "HEALTHCHECK_OPERATOR_SCRIPT_PROCESSES"
    )]
    script_processes: Option<u64>,
    /// Files that a process of a script may have open, 32-1048576
    #[arg(
        long, value_name = "N", default_value_t = 1024, value_parser = value_parser!(u64).range(LEAST_OPEN_FILES..=1_048_576),
        env = "HEALTHCHECK_OPERATOR_SCRIPT_OPEN_FILES"
    )]
    script_open_files: u64,
    /// Size of a file that a script may write, such as 16Mi [default: no limit but the disk's]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, env = "HEALTHCHECK_OPERATOR_SCRIPT_FILE_SIZE")]
    script_file_size: Option<u64>,
}

impl ScriptLimitArgs {
    pub fn limits(&self) -> Limits {
        Limits {
            cpu_seconds: self.script_cpu_seconds,
            memory: self.script_memory,
            processes: self.script_processes,
            open_files: Some(self.script_open_files),
            file_size: self.script_file_size,
        }
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes < LEAST_MEMORY {
        return Err(format!(
            "{bytes} bytes are too few for a program to begin: give at least {}Mi",
            LEAST_MEMORY >> 20
        ));
    }
    Ok(bytes)
}

/// What a Kubernetes quantity calls bytes: a whole number, alone or with k, M, G, Ki, Mi or Gi.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: Option<u64> = match unit {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("'{text}' is no number of bytes, such as 64Mi or 1048576"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        limits: ScriptLimitArgs,
    }

    fn limits(flags: &[&str]) -> Result<Limits, String> {
        let cli = Cli::try_parse_from([&["test"], flags].concat()).map_err(|error| error.to_string())?;
        Ok(cli.limits.limits())
    }

    #[test]
    fn without_flags_only_descriptors_are_limited() {
        assert_eq!(limits(&[]), Ok(Limits { open_files: Some(1024), ..Limits::default() }));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_and_its_near_miss_taken() {
        for (flag, refused, part, taken) in [
            ("--script-cpu-seconds", ["0", "86401"], "1..=86400", ["1", "86400"]),
            ("--script-memory", ["16383Ki", "64MB"], "16Mi", ["16Mi", "64M"]),
            ("--script-processes", ["15", "-1"], "", ["16", "1000000"]),
            ("--script-open-files", ["31", "1048577"], "32..=1048576", ["32", "1048576"]),
            ("--script-file-size", ["0", "99999999999Gi"], "no number of bytes", ["1", "1Gi"]),
        ] {
            for value in refused {
                let error = limits(&[flag, value]).expect_err(value);
                assert!(error.contains(flag) || error.contains("unexpected argument"), "{flag} {value}: {error}");
                assert!(error.contains(part) || error.contains("no number of bytes"), "{flag} {value}: {error}");
            }
            for value in taken {
                assert!(limits(&[flag, value]).is_ok(), "{flag} {value}");
            }
        }
        assert_eq!(limits(&["--script-memory", "64Mi"]).expect("valid").memory, Some(64 << 20));
    }
}
