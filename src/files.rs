//! Files that take the place of others: written under another name, synced, then renamed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The path with a suffix.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Creates a file for appending. It replaces one that a crash may have left.
pub fn create(path: &Path) -> io::Result<File> {
    remove(path);
    OpenOptions::new().read(true).append(true).create_new(true).open(path)
}

/// Removes a file if it exists.
pub fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap_or_default();
}

/// Makes a rename in the directory of this file survive a power loss.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
