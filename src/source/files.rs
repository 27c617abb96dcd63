//! Finding and reading the files that are named on the command line.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::Fault;

/// More than any hand or tool writes; a larger file is a mistake, such as a disk image.
const LARGEST_FILE: u64 = 64 * 1024 * 1024;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// The name that stands for standard input.
const STDIN: &str = "-";

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// As it was named, for messages.
    pub name: String,
    pub text: String,
}

/// Reads every file in `paths`; of a directory its `*.yaml`, `*.yml` and `*.json` files in the order of their names,
/// without its subdirectories; `-` is standard input.
///
/// What cannot be read is a fault, and the others are read all the same.
#[must_use]
pub fn gather(paths: &[PathBuf]) -> (Vec<Source>, Vec<Fault>) {
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        match files_of(path) {
            Ok(files) => {
                for file in files {
                    match read(&file) {
                        Ok(text) => sources.push(Source { name: file.display().to_string(), text }),
                        Err(error) => faults.push(fault(&file, &error)),
                    }
                }
            }
            Err(error) => faults.push(fault(path, &error)),
        }
    }
    (sources, faults)
}

fn fault(path: &Path, error: &io::Error) -> Fault {
    Fault::of_file(path.display().to_string(), format!("cannot be read: {error}"))
}

/// The files that `path` stands for.
pub(super) fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.as_os_str() == STDIN || !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let known = file.extension().and_then(|extension| extension.to_str()).is_some_and(|e| EXTENSIONS.contains(&e));
        // Links are followed: the files of a mounted ConfigMap are links.
        if known && fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// What can be read only once, standard input and pipes, as it was then: files are read again when one of them changes.
static ONCE: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

fn read(path: &Path) -> io::Result<String> {
    if path.as_os_str() != STDIN && fs::metadata(path)?.is_file() {
        return read_now(path);
    }
    let mut once = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = once.get(path) {
        return Ok(text.clone());
    }
    let text = read_now(path)?;
    once.insert(path.to_owned(), text.clone());
    Ok(text)
}

fn read_now(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    if path.as_os_str() == STDIN {
        io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut text)?;
    } else {
        fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut text)?;
    }
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB: split it"));
    }
    String::from_utf8(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_manifests_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["b.yml", "a.yaml", "c.json", "notes.txt", ".hidden"] {
            fs::write(dir.path().join(name), name).expect("writable");
        }
        fs::create_dir(dir.path().join("sub.yaml")).expect("writable");
        let (sources, faults) = gather(&[dir.path().to_owned(), dir.path().join("absent.yaml")]);
        assert_eq!(
            sources.iter().map(|source| source.text.as_str()).collect::<Vec<_>>(),
            ["a.yaml", "b.yml", "c.json"]
        );
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("absent.yaml: cannot be read: No such file"), "{}", faults[0]);
    }

    #[test]
    fn what_is_no_text_is_a_fault_of_its_own() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("a.yaml"), [0xff, 0xfe]).expect("writable");
        let (sources, faults) = gather(&[dir.path().to_owned()]);
        assert!(sources.is_empty() && faults[0].message.contains("not UTF-8"), "{faults:?}");
    }
}
