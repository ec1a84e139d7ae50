//! The log on a disk that fails on demand: whatever fails, the file holds the records in order, and all
//! that was acknowledged.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::Aof;
use super::file::LogFile;
use super::flush::BUFFER_BYTES;
use super::stream::{Copied, StreamReader};
use crate::rng::Rng;
use crate::stats::lock;

/// How long a test waits for another thread before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk that fails on demand and records what was done to it.
#[derive(Default)]
struct Disk {
    state: Mutex<DiskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DiskState {
    /// The content of the file.
    bytes: Vec<u8>,
    /// The results of the next writes: how many bytes are taken at most, or a failure.
    writes: VecDeque<Result<usize, ErrorKind>>,
    /// No write takes anything.
    full: bool,
    /// How many of the next syncs fail.
    failing_syncs: usize,
    /// Syncs do not end.
    stuck: bool,
    /// How long the file was when each sync began.
    syncs: Vec<usize>,
    /// How much of the file a sync that succeeded covers.
    durable: usize,
}

struct FakeFile(Arc<Disk>);

impl Disk {
    fn file(self: &Arc<Disk>) -> Box<dyn LogFile> {
        Box::new(FakeFile(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.state)
    }

    fn set(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().bytes).into_owned()
    }

    /// How long the file is, and how much of it a sync covers.
    fn lengths(&self) -> (usize, usize) {
        let state = self.state();
        (state.bytes.len(), state.durable)
    }

    fn wait_while(&self, condition: impl FnMut(&mut DiskState) -> bool) {
        let waited = self.changed.wait_timeout_while(self.state(), PATIENCE, condition);
        let waited = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        assert!(!waited, "waited in vain for another thread");
    }
}

impl Write for FakeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.full {
            return Err(ErrorKind::StorageFull.into());
        }
        let taken = state.writes.pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        state.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile for FakeFile {
    fn sync(&self) -> io::Result<()> {
        let mut length = 0;
        self.0.set(|state| {
            length = state.bytes.len();
            state.syncs.push(length);
        });
        self.0.wait_while(|state| state.stuck);
        let mut state = self.0.state();
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(ErrorKind::Other.into());
        }
        state.durable = state.durable.max(length);
        Ok(())
    }

    fn second_handle(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(self.0.file())
    }

    fn is_at(&self, _: &Path) -> bool {
        true
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.state().bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.state();
        let rest = usize::try_from(offset).ok().and_then(|offset| state.bytes.get(offset..));
        rest.unwrap_or_default().read(buffer)
    }
}

/// A log on a new disk.
fn aof() -> io::Result<(Aof, Arc<Disk>)> {
    let disk = Arc::new(Disk::default());
    Ok((Aof::new(disk.file(), Path::new("log"))?, disk))
}

/// Waits for threads that return results; the first error is the result.
fn join_all<'a, T>(
    threads: impl IntoIterator<Item = thread::ScopedJoinHandle<'a, io::Result<T>>>,
) -> io::Result<Vec<T>> {
    let panicked = |_| Err(io::Error::other("a thread panicked"));
    threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
}

#[test]
fn records_wait_for_the_flush_and_a_select_comes_where_the_database_changes() -> io::Result<()> {
    let (aof, disk) = aof()?;
    aof.append(0, b"a");
    aof.append(0, b"b");
    aof.append(12, b"c");
    let lsn = aof.append(12, b"d");
    assert_eq!((disk.text().as_str(), aof.buffered_bytes() as u64), ("", lsn));
    aof.flush_to(lsn)?;
    assert_eq!(aof.buffered_bytes(), 0);
    let expected = "ab*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\ncd";
    assert_eq!(disk.text(), expected);
    assert_eq!(lsn, expected.len() as u64);
    assert_eq!(aof.size(), (lsn, 0));
    Ok(())
}

#[test]
fn without_a_file_everything_succeeds_and_nothing_is_kept() -> io::Result<()> {
    let aof = Aof::disabled();
    assert_eq!(aof.append(0, b"a"), 0);
    aof.flush()?;
    aof.sync()?;
    assert_eq!((aof.failure(), aof.size(), aof.is_enabled()), (None, (0, 0), false));
    let disk = Arc::new(Disk::default());
    let aof = Aof::new(disk.file(), Path::new("log"))?;
    aof.append(0, b"a");
    aof.close()?;
    assert_eq!(disk.text(), "a");
    assert_eq!(disk.lengths(), (1, 1));
    assert_eq!(aof.append(0, b"b"), 0);
    aof.flush()?;
    assert_eq!(disk.text(), "a");
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn after_any_failed_write_the_file_holds_the_records_in_order_and_all_acknowledged_ones()
-> io::Result<()> {
    let mut random = Rng::of_run();
    for round in 1..200 {
        let (aof, disk) = aof()?;
        let mut expected = Vec::new();
        for record in 0..60 {
            let outcome = match random.below(6) {
                0 => Some(Err(ErrorKind::StorageFull)),
                1 => Some(Err(ErrorKind::Interrupted)),
                2 => Some(Ok(0)),
                3 => Some(Ok(1 + random.below(100_000))),
                _ => None,
            };
            disk.set(|state| state.writes.extend(outcome));
            // Some lengths are around the size of the buffer, where records take another path.
            let length = match random.below(4) {
                0 => BUFFER_BYTES - 2 + random.below(4),
                1 => random.below(3 * BUFFER_BYTES),
                _ => random.below(200),
            };
            let bytes = vec![record; length];
            expected.extend_from_slice(&bytes);
            let lsn = aof.append(0, &bytes);
            assert_eq!(lsn, expected.len() as u64);
            if random.below(2) == 0 && aof.flush_to(lsn).is_ok() {
                assert!(disk.state().bytes == expected, "round {round}, record {record}");
                assert_eq!(aof.failure(), None);
            }
            assert!(expected.starts_with(&disk.state().bytes), "round {round}, record {record}");
            assert_eq!(aof.check(), Ok(()), "round {round}, record {record}");
        }
        disk.set(|state| state.writes.clear());
        aof.flush()?;
        assert!(disk.state().bytes == expected, "round {round}");
        assert_eq!((aof.failure(), aof.size().0), (None, expected.len() as u64));
    }
    Ok(())
}

#[test]
fn a_full_disk_acknowledges_nothing_new_and_recovers_once_there_is_space() -> io::Result<()> {
    let (aof, disk) = aof()?;
    let before = aof.append(0, b"before");
    aof.flush_to(before)?;
    disk.set(|state| state.full = true);
    let first = aof.append(0, b"first");
    for _ in 0..3 {
        let error = aof.flush_to(first).err();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
        assert!(aof.sync().is_err());
    }
    let full = io::Error::from(ErrorKind::StorageFull).to_string();
    assert_eq!((aof.failure(), aof.needs_rewrite()), (Some(full), false));
    let second = aof.append(0, b"second");
    assert!(aof.flush_to(second).is_err());
    // Clients may still see what was acknowledged before.
    aof.flush_to(before)?;
    aof.sync_to(before)?;
    assert_eq!(disk.text(), "before");
    disk.set(|state| state.full = false);
    // What the syncing thread does once a second.
    aof.sync()?;
    assert_eq!(aof.failure(), None);
    aof.flush_to(second)?;
    assert_eq!(disk.text(), "beforefirstsecond");
    assert_eq!(disk.lengths(), (second as usize, second as usize));
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn a_file_that_cannot_be_written_for_another_reason_than_space_needs_a_rewrite() -> io::Result<()> {
    let (aof, old) = aof()?;
    old.set(|state| state.writes.extend([Err(ErrorKind::FileTooLarge); 2]));
    let lsn = aof.append(0, b"record");
    assert!(aof.flush_to(lsn).is_err());
    assert!(aof.needs_rewrite());
    // It would take more by now, but what it has lost is unknown.
    assert!(aof.flush_to(lsn).is_err());
    let tail = Arc::new(Disk::default());
    aof.open(tail.file(), Path::new("tail"))?;
    let new = Arc::new(Disk::default());
    aof.tee(new.file(), Path::new("log"), Copied::default(), |_| Ok(0))?;
    aof.switch()?;
    assert_eq!((aof.failure(), aof.needs_rewrite()), (None, false));
    let after = aof.append(0, b"after");
    aof.flush_to(after)?;
    assert_eq!(new.text(), "after");
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn a_record_that_was_written_in_part_is_completed_before_the_next() -> io::Result<()> {
    let (aof, disk) = aof()?;
    aof.flush()?;
    // One record that waits in the buffer, and one that bypasses it.
    for length in [100, 3 * BUFFER_BYTES] {
        disk.set(|state| {
            state.bytes.clear();
            state.writes = [Ok(7), Ok(20), Err(ErrorKind::StorageFull)].into();
        });
        let lsn = aof.append(0, &vec![b'x'; length]);
        assert!(aof.flush_to(lsn).is_err() || disk.state().bytes.len() == length);
        disk.set(|state| state.full = true);
        let behind = aof.append(0, b"y");
        assert!(aof.flush_to(behind).is_err());
        assert!(disk.state().bytes.iter().all(|byte| *byte == b'x'));
        disk.set(|state| (state.full, state.writes) = (false, VecDeque::new()));
        aof.flush_to(behind)?;
        assert!(disk.state().bytes == [&vec![b'x'; length][..], b"y"].concat(), "{length}");
    }
    Ok(())
}

#[test]
fn after_a_failed_sync_nothing_new_is_acknowledged_even_if_the_disk_recovers() -> io::Result<()> {
    let (aof, disk) = aof()?;
    let before = aof.append(0, b"before");
    aof.flush_to(before)?;
    aof.sync_to(before)?;
    let flushed = aof.append(0, b"flushed");
    aof.flush_to(flushed)?;
    disk.set(|state| state.failing_syncs = 1);
    assert!(aof.sync_to(flushed).is_err());
    let why = io::Error::from(ErrorKind::Other).to_string();
    // The disk works again, but may have lost what it could not write.
    for _ in 0..3 {
        assert_eq!((aof.failure(), aof.needs_rewrite()), (Some(why.clone()), true));
        assert!(aof.sync_to(flushed).is_err());
        let after = aof.append(0, b"after");
        assert_eq!(aof.flush_to(after).err().map(|error| error.to_string()), Some(why.clone()));
        assert_eq!(aof.sync_to(after).err().map(|error| error.to_string()), Some(why.clone()));
        assert!(aof.sync().is_err());
    }
    // Under `everysec` a client may see what was flushed, and under `always` what was synced.
    aof.flush_to(flushed)?;
    aof.flush_to(before)?;
    assert_eq!(aof.check(), Ok(()));
    aof.sync_to(before)
}

#[test]
fn many_waiters_share_one_sync() -> io::Result<()> {
    const WAITERS: usize = 20;
    let (aof, disk) = aof()?;
    disk.set(|state| state.stuck = true);
    let all_flushed = Barrier::new(WAITERS + 1);
    thread::scope(|scope| {
        let leader = aof.append(0, b"leader");
        aof.flush_to(leader)?;
        let leader = scope.spawn({
            let aof = &aof;
            move || aof.sync_to(leader)
        });
        disk.wait_while(|state| state.syncs.is_empty());
        // The others append and flush while the leader's sync is running.
        let follow = || {
            let lsn = aof.append(0, b"follower");
            let flushed = aof.flush_to(lsn);
            all_flushed.wait();
            flushed.and_then(|()| aof.sync_to(lsn))?;
            assert!(disk.state().durable as u64 >= lsn);
            Ok(())
        };
        let followers: Vec<_> = (0..WAITERS).map(|_| scope.spawn(follow)).collect();
        all_flushed.wait();
        disk.set(|state| state.stuck = false);
        join_all(followers.into_iter().chain([leader]))
    })?;
    assert_eq!(disk.state().syncs.len(), 2, "one for the leader, one for all others");
    Ok(())
}

#[test]
fn an_acknowledged_record_was_flushed_before_a_sync_that_succeeded() -> io::Result<()> {
    let (aof, disk) = aof()?;
    thread::scope(|scope| {
        let write = |writer: usize| {
            for record in 0..200 {
                let lsn = aof.append(writer % 3, &vec![b'r'; record]);
                aof.flush_to(lsn)?;
                assert!(disk.state().bytes.len() as u64 >= lsn);
                aof.sync_to(lsn)?;
                assert!(disk.state().durable as u64 >= lsn);
                assert_eq!(aof.check(), Ok(()));
            }
            Ok(())
        };
        join_all((0..6).map(|writer| scope.spawn(move || write(writer))).collect::<Vec<_>>())
    })?;
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn a_slow_sync_delays_only_the_threads_that_wait_for_it() -> io::Result<()> {
    let (aof, disk) = aof()?;
    let synced = aof.append(0, b"synced");
    aof.flush_to(synced)?;
    aof.sync_to(synced)?;
    disk.set(|state| state.stuck = true);
    let (done, steps) = mpsc::channel();
    thread::scope(|scope| {
        let slow = aof.append(0, b"slow");
        let aof = &aof;
        scope.spawn(move || aof.flush_to(slow).and_then(|()| aof.sync_to(slow)));
        disk.wait_while(|state| state.syncs.len() < 2);
        scope.spawn(move || {
            let lsn = aof.append(1, b"meanwhile");
            let send = |step, result: io::Result<()>| done.send((step, result.is_ok()));
            send("flushed", aof.flush_to(lsn))?;
            send("sized", Ok(_ = aof.size()))?;
            // What a reader under `always` does after it has read a record that was synced long ago.
            send("synced before", aof.sync_to(synced))
        });
        let steps: Vec<_> = (0..3).map(|_| steps.recv_timeout(PATIENCE / 5).ok()).collect();
        disk.set(|state| state.stuck = false);
        assert_eq!(steps, ["flushed", "sized", "synced before"].map(|step| Some((step, true))));
    });
    assert!(disk.text().ends_with("meanwhile"));
    Ok(())
}

#[test]
fn during_a_tee_an_acknowledged_record_is_in_both_files() -> io::Result<()> {
    let (aof, old) = aof()?;
    let new = Arc::new(Disk::default());
    let before = aof.append(0, b"before");
    aof.tee(new.file(), Path::new("log"), Copied::default(), |old_length| {
        assert_eq!(old_length, before);
        new.set(|state| state.bytes.extend(b"copy "));
        Ok(5)
    })?;
    assert_eq!(old.text(), "before");
    let both = aof.append(0, b"both");
    assert_eq!(aof.check(), Ok(()));
    aof.flush_to(both)?;
    aof.sync_to(both)?;
    assert_eq!(old.text(), "beforeboth");
    assert_eq!(new.text(), "copy both");
    assert_eq!((old.lengths().1 as u64, new.lengths().1), (both, 9));
    aof.switch()?;
    assert_eq!((aof.size(), aof.check()), ((9, 9), Ok(())));
    let after = aof.append(0, b"after");
    aof.flush_to(after)?;
    aof.sync_to(after)?;
    assert_eq!(old.text(), "beforeboth");
    assert_eq!(new.text(), "copy bothafter");
    assert_eq!(new.lengths(), (14, 14));
    assert_eq!((aof.size(), aof.check()), ((14, 9), Ok(())));
    Ok(())
}

#[test]
fn when_the_new_file_fails_nothing_is_acknowledged_until_it_is_given_up() -> io::Result<()> {
    let (aof, old) = aof()?;
    let new = Arc::new(Disk::default());
    aof.tee(new.file(), Path::new("log"), Copied::default(), |_| Ok(0))?;
    new.set(|state| state.full = true);
    let lsn = aof.append(0, b"record");
    assert!(aof.flush_to(lsn).is_err());
    assert!(aof.failure().is_some());
    // It would take more by now, but there is a hole in it.
    new.set(|state| state.full = false);
    assert!(aof.flush_to(lsn).is_err());
    assert!(aof.switch().is_err());
    aof.untee();
    aof.flush_to(lsn)?;
    assert_eq!(aof.failure(), None);
    aof.sync_to(lsn)?;
    assert_eq!(old.text(), "record");
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn a_new_file_that_failed_to_sync_does_not_become_the_log() -> io::Result<()> {
    let (aof, _) = aof()?;
    let new = Arc::new(Disk::default());
    aof.tee(new.file(), Path::new("log"), Copied::default(), |_| Ok(0))?;
    let lsn = aof.append(0, b"record");
    aof.flush_to(lsn)?;
    // A client's sync meets the failure. The rewrite's own sync, a moment later, would not, because the
    // kernel reports a failure once.
    new.set(|state| state.failing_syncs = 1);
    assert!(aof.sync_to(lsn).is_err());
    new.file().sync()?;
    assert!(aof.switch().is_err());
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn a_sync_that_fails_after_its_file_became_the_log_fails_the_log() -> io::Result<()> {
    let (aof, _) = aof()?;
    let new = Arc::new(Disk::default());
    aof.tee(new.file(), Path::new("log"), Copied::default(), |_| Ok(0))?;
    let lsn = aof.append(0, b"record");
    aof.flush_to(lsn)?;
    new.set(|state| (state.stuck, state.failing_syncs) = (true, 1));
    let failed = thread::scope(|scope| {
        let waiter = scope.spawn(|| aof.sync_to(lsn).is_err());
        new.wait_while(|state| state.syncs.is_empty());
        let switched = aof.switch();
        new.set(|state| state.stuck = false);
        switched.map(|()| waiter.join().unwrap_or_default())
    })?;
    assert!(failed && aof.needs_rewrite());
    assert!(aof.sync_to(lsn).is_err());
    Ok(())
}

#[test]
fn a_switch_to_a_new_file_recovers_from_a_failed_sync() -> io::Result<()> {
    let (aof, old) = aof()?;
    let lsn = aof.append(0, b"record");
    aof.flush_to(lsn)?;
    old.set(|state| state.failing_syncs = 1);
    assert!(aof.sync_to(lsn).is_err());
    let new = Arc::new(Disk::default());
    aof.tee(new.file(), Path::new("log"), Copied::default(), |_| Ok(0))?;
    let during = aof.append(0, b"during");
    assert!(aof.flush_to(during).is_err(), "the new file is not the log yet");
    aof.switch()?;
    assert_eq!((aof.failure(), aof.needs_rewrite()), (None, false));
    aof.flush_to(during)?;
    aof.sync_to(during)?;
    assert_eq!(new.text(), "during");
    assert_eq!(new.state().durable, 6);
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}

#[test]
fn bytes_of_others_in_the_file_are_noticed_before_a_rewrite_begins_and_before_its_tee()
-> io::Result<()> {
    for before_the_tee in [false, true] {
        let (aof, disk) = aof()?;
        aof.append(0, b"one\n");
        if before_the_tee {
            aof.flush_all()?;
        }
        disk.set(|state| state.bytes.extend(b"theirs"));
        aof.append(0, b"two\n");
        let (new, mut copies) = (Arc::new(Disk::default()), 0);
        let result = if before_the_tee {
            aof.tee(new.file(), Path::new("log"), Copied::default(), |_| {
                copies += 1;
                Ok(0)
            })
        } else {
            aof.flush_all()
        };
        let error = "'log' was changed by another program: it has 14 bytes, not 8";
        assert_eq!(result.err().map(|error| error.to_string()).as_deref(), Some(error));
        assert!(copies == 0 && aof.needs_rewrite() && aof.flush().is_err());
    }
    Ok(())
}

/// Reads the stream as far as it goes.
fn read_all(aof: &Aof, reader: &mut StreamReader) -> io::Result<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 3]);
    loop {
        match reader.read(aof, &mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            read => text.extend_from_slice(&buffer[..read]),
        }
    }
}

#[test]
fn a_reader_gets_what_was_flushed_without_annotations_and_goes_on_in_a_rewritten_log()
-> io::Result<()> {
    let (aof, disk) = aof()?;
    let mut reader = StreamReader::new(0);
    aof.append_anywhere(b"one ");
    assert_eq!(read_all(&aof, &mut reader)?, "");
    aof.flush()?;
    aof.append_anywhere(b"two ");
    aof.annotate(|lsn| format!("#at {lsn}\n").into_bytes());
    aof.append_anywhere(b"three ");
    aof.flush()?;
    assert_eq!(disk.text(), "one two #at 8\nthree ");
    assert_eq!(read_all(&aof, &mut reader)?, "one two three ");
    assert_eq!(aof.check(), Ok(()));
    // The new file begins with a snapshot of the state at the LSN 4.
    let new = Arc::new(Disk::default());
    let copied = Copied { lsn: 4, old: 4, new: 9 };
    aof.tee(new.file(), Path::new("log"), copied, |length| {
        let rest = disk.text().split_off(4);
        assert_eq!(length, disk.text().len() as u64);
        new.set(|state| state.bytes.extend(format!("snapshot {rest}").bytes()));
        Ok(9 + rest.len() as u64)
    })?;
    aof.append_anywhere(b"four ");
    aof.annotate(|lsn| format!("#at {lsn}\n").into_bytes());
    aof.append_anywhere(b"five ");
    aof.flush()?;
    assert_eq!(aof.check(), Ok(()));
    let mut late = StreamReader::new(0);
    assert_eq!(late.read(&aof, &mut [0; 2])?, 2);
    aof.switch()?;
    aof.append_anywhere(b"six ");
    aof.flush()?;
    assert_eq!(new.text(), "snapshot two #at 8\nthree four #at 19\nfive six ");
    assert_eq!(read_all(&aof, &mut reader)?, "four five six ");
    assert_eq!(read_all(&aof, &mut late)?, "e two three four five six ");
    for lsn in 0..aof.appended_lsn() {
        let all = "one two three four five six ";
        assert_eq!(read_all(&aof, &mut StreamReader::new(lsn))?, all[lsn as usize..]);
    }
    assert_eq!(aof.check(), Ok(()));
    assert_eq!(aof.stream_from(), 0);
    aof.forget_before(3);
    assert_eq!(aof.stream_from(), 0);
    aof.forget_before(4);
    assert_eq!(aof.stream_from(), 4);
    assert!(StreamReader::new(3).read(&aof, &mut [0; 9]).is_err());
    Ok(())
}

#[test]
fn a_log_that_was_replayed_is_read_from_its_first_place_on_and_nobody_goes_on_after_a_gap()
-> io::Result<()> {
    let (aof, disk) = aof()?;
    disk.set(|state| state.bytes.extend(b"snapshot #a\nabc#b\ndef"));
    aof.start(21, &[(100, 12), (103, 18)]);
    assert_eq!((aof.appended_lsn(), aof.stream_from()), (106, 100));
    aof.append_anywhere(b"ghi");
    aof.sync()?;
    assert_eq!(aof.check(), Ok(()));
    assert_eq!(read_all(&aof, &mut StreamReader::new(101))?, "bcdefghi");
    let mut reader = StreamReader::new(109);
    assert_eq!(read_all(&aof, &mut reader)?, "");
    aof.close()?;
    aof.append_anywhere(b"lost");
    let other = Arc::new(Disk::default());
    aof.open(other.file(), Path::new("log"))?;
    aof.append_anywhere(b"new");
    aof.flush()?;
    assert!(read_all(&aof, &mut reader).is_err());
    assert_eq!(read_all(&aof, &mut StreamReader::new(aof.stream_from()))?, "new");
    assert_eq!(aof.check(), Ok(()));
    Ok(())
}
