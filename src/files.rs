//! Files that take the place of others: written under another name, synced, then renamed. And what must be
//! known of a path before it is opened: that would wait for a FIFO's other end, and a device can be read for
//! ever.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The path with a suffix.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Fails if there is something else than a file at the path.
pub fn expect_file(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let is = metadata.file_type();
    if is.is_file() {
        return Ok(());
    }
    let what = match () {
        () if is.is_dir() => "a directory",
        () if is.is_fifo() => "a FIFO",
        () if is.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a file")))
}

/// Fails if the path cannot be read once, from its beginning to its end.
pub fn expect_input(path: &Path) -> io::Result<()> {
    if is_descriptor(path) { Ok(()) } else { expect_file(path) }
}

/// Fails if the path cannot be written at once.
pub fn expect_output(path: &Path) -> io::Result<()> {
    let is_device = |is: std::fs::FileType| is.is_char_device() || is.is_block_device();
    if is_descriptor(path)
        || std::fs::metadata(path).is_ok_and(|found| is_device(found.file_type()))
    {
        return Ok(());
    }
    expect_file(path)
}

/// Whether the path stands for a descriptor of this process, such as `/dev/stdout` and the `/dev/fd/63` that
/// a shell makes of `<(…)`. It is open already.
fn is_descriptor(path: &Path) -> bool {
    let names = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    names.iter().any(|name| path == Path::new(name))
        || ["/dev/fd", "/proc/self/fd"].iter().any(|directory| path.starts_with(directory))
}

/// Reads a whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    expect_file(path)?;
    std::fs::read(path)
}

/// Options for a file with data: if it is created, only its owner can read it.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Creates a file for appending. It replaces one that a crash may have left.
pub fn create(path: &Path) -> io::Result<File> {
    remove(path);
    private().read(true).append(true).create_new(true).open(path)
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

/// Creates a file in the directory of this path that has no name any more: it ends with its last handle.
pub fn nameless(path: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let path = with_suffix(path, &format!(".{}-{number}", std::process::id()));
    let file = create(&path)?;
    remove(&path);
    Ok(file)
}
