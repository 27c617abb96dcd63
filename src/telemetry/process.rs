//! What the operating system says of this process: the usual `process_*` metrics. Linux only; elsewhere there are none.

use std::{fs, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Ticks a second in `/proc/<pid>/stat`: `USER_HZ`, which Linux keeps at 100 for user space on every architecture that
/// Rust's Linux targets cover.
const USER_HZ: f64 = 100.0;

/// Adds the `process_*` metrics to `registry`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process { started: start_time() }));
}

#[derive(Debug)]
struct Process {
    /// Seconds since the epoch.
    started: Option<f64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let memory = Memory::read();
        counter(&mut encoder, "process_cpu_seconds", "User and system CPU time spent, in seconds", cpu_seconds())?;
        gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory, in bytes", memory.resident)?;
        gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory, in bytes", memory.virtual_size)?;
        gauge(&mut encoder, "process_open_fds", "Open file descriptors", open_descriptors())?;
        gauge(&mut encoder, "process_max_fds", "How many file descriptors may be open", max_descriptors())?;
        gauge(&mut encoder, "process_start_time_seconds", "When the process started, since the epoch", self.started)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: Option<f64>) -> std::fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: Option<f64>) -> std::fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn cpu_seconds() -> Option<f64> {
    cfg!(target_os = "linux").then(|| seconds(ClockId::ProcessCPUTime))
}

#[allow(clippy::cast_precision_loss)] // Seconds, far below 2^52.
fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[derive(Default)]
struct Memory {
    resident: Option<f64>,
    virtual_size: Option<f64>,
}

impl Memory {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
        };
        Self { resident: kib("VmRSS:"), virtual_size: kib("VmSize:") }
    }
}

#[allow(clippy::cast_precision_loss)] // A count of descriptors.
fn open_descriptors() -> Option<f64> {
    // The listing itself holds one descriptor, which it lists.
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64)
}

#[allow(clippy::cast_precision_loss)] // A count of descriptors.
fn max_descriptors() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(|limit| limit as f64)
}

/// When this process started, in seconds since the epoch, to about 10 ms.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold anything, a ')' too; what follows it does not.
    let (_, fields) = stat.rsplit_once(") ")?;
    // proc_pid_stat(5): starttime is field 22, and the first of `fields` is field 3.
    let ticks: f64 = fields.split(' ').nth(19)?.parse().ok()?;
    let age = boot_seconds()? - ticks / USER_HZ;
    Some(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64() - age)
}

#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_wraps)] // There is none elsewhere.
fn boot_seconds() -> Option<f64> {
    Some(seconds(ClockId::Boottime))
}

#[cfg(not(target_os = "linux"))]
fn boot_seconds() -> Option<f64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_describes_itself() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let started = start_time().expect("/proc is there");
        assert!(started <= now + 1.0 && started > now - 86_400.0, "started {started}, now {now}");
        let memory = Memory::read();
        assert!(memory.resident.expect("VmRSS") > 100_000.0);
        assert!(memory.virtual_size.expect("VmSize") >= memory.resident.expect("VmRSS"));
        let before = open_descriptors().expect("/proc is there");
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("/dev/null opens")).collect();
        assert!(open_descriptors().expect("/proc is there") >= before + 25.0, "{} more are open", held.len());
    }
}
