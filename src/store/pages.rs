//! The pages of a table: where its records are.
//!
//! A record is appended to the *open* page and stays there until it is dead; then the page has a hole. When
//! too much of all pages is holes, the page with the most is *cleaned*: its live records move to the open
//! page, and its memory is given back. (The idea is from log-structured file systems, and RAMCloud brought it
//! to memory: Rumble, Kejriwal and Ousterhout, "Log-structured memory for DRAM-based storage", 2014.) Pages
//! are of one size, so that the allocator can use what one table gives back for any other.
//!
//! A [`Place`] is the number of a page and an offset in it. Only the open page grows, in steps, so
//! a table of three keys does not take a whole page. A record that is longer than a page has one of its own.
//!
//! Invariants ([`Pages::check`]): every page is full of records from its first byte to its last; `dead` is
//! the number of bytes of dead ones, of each page and in all; a page without a live record takes no memory,
//! except the open one; `volatile` is the number of live records that expire, `units` what the pages take.
//! The pages that take no memory, but the open one, are in a list that begins behind it.

use super::memory::{UNIT_BYTES, allocated, grow_slowly};
use super::record::{
    Body, NEVER, NewRecord, Record, Shape, StringOrigin, kill, overwrite, set_expiry,
};
use crate::text::ensure;

/// With what the allocator adds, 4 KB.
const PAGE_BYTES: usize = 4088;
/// A page grows by no more than this at once.
const STEP_BYTES: usize = 512;
const CACHE_LINE_BYTES: usize = 64;
/// The bits of a place that are the offset in the page.
const OFFSET_BITS: u32 = 12;
/// No page.
const NONE: u32 = u32::MAX;
/// The pages are cleaned when more than one byte in so many is dead.
const LIVE_PER_DEAD: usize = 6;

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u64);

impl Place {
    fn new(page: u32, offset: usize) -> Place {
        Place(u64::from(page) << OFFSET_BITS | offset as u64)
    }

    fn page(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize
    }

    /// The place in four bytes.
    ///
    /// # Panics
    /// If it is in the second four gigabytes of the pages, or behind.
    pub fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or_else(|_| unreachable!("a table has fewer than 2^20 pages"))
    }
}

impl From<u32> for Place {
    fn from(place: u32) -> Place {
        Place(place.into())
    }
}

#[derive(Clone, Default)]
struct Page {
    bytes: Vec<u8>,
    dead: u32,
    /// The next page that takes no memory.
    next: u32,
}

/// All records of a table.
#[derive(Default)]
pub struct Pages {
    list: Vec<Page>,
    open: u32,
    dead: u32,
    /// What all pages and their list take, in [`UNIT_BYTES`].
    units: u32,
    /// How many live records expire.
    volatile: u32,
}

/// The copy takes no more memory than its records do.
impl Clone for Pages {
    fn clone(&self) -> Pages {
        let mut copy = Pages { list: self.list.clone(), ..*self };
        copy.units = copy.counted_units();
        copy
    }
}

fn units(page: &Page) -> u32 {
    (allocated(page.bytes.capacity()) / UNIT_BYTES) as u32
}

impl Pages {
    /// The record at that place.
    #[inline(always)]
    pub fn record(&self, place: Place) -> Record<'_> {
        Record::at(&self.list[place.page()].bytes[place.offset()..])
    }

    /// Reads from the two cache lines in which most records are, so that they are in the CPU's cache.
    pub fn touch(&self, place: Place) -> u8 {
        let (bytes, offset) = (&self.list[place.page()].bytes, place.offset());
        bytes[offset] ^ bytes.get(offset + CACHE_LINE_BYTES).copied().unwrap_or_default()
    }

    /// How many live records expire.
    pub fn volatile(&self) -> usize {
        self.volatile as usize
    }

    /// The memory that they take, in [`UNIT_BYTES`].
    pub fn memory_units(&self) -> u32 {
        self.units
    }

    /// The same in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    fn counted_units(&self) -> u32 {
        self.list_units() + self.list.iter().map(units).sum::<u32>()
    }

    fn list_units(&self) -> u32 {
        (allocated(self.list.capacity() * size_of::<Page>()) / UNIT_BYTES) as u32
    }

    /// The bytes in them that no live record takes.
    pub fn free_bytes(&self) -> usize {
        let used: usize = self.list.iter().map(|page| page.bytes.len()).sum();
        self.memory_bytes() - (used - self.dead as usize)
    }

    /// Appends a record.
    pub fn append(&mut self, record: &NewRecord) -> Place {
        let len = record.len();
        let page = self.page_for(len);
        self.volatile += u32::from(record.expires_at_ms != NEVER);
        let bytes = &mut self.list[page as usize].bytes;
        let place = Place::new(page, bytes.len());
        record.push_to(bytes);
        debug_assert_eq!(bytes.len(), place.offset() + len);
        place
    }

    /// Overwrites all but the key of a record of this shape, if that needs as much room. Returns whether it
    /// does.
    #[inline]
    pub fn overwrite(
        &mut self,
        place: Place,
        old: Shape,
        body: Body,
        origin: StringOrigin,
        expires_at_ms: i64,
    ) -> bool {
        let bytes = &mut self.list[place.page()].bytes[place.offset()..];
        overwrite(bytes, old, body, origin, expires_at_ms)
    }

    /// Changes the expiry of a record, if that needs as much room. Returns whether it does.
    pub fn set_expiry(&mut self, place: Place, expires_at_ms: i64) -> bool {
        set_expiry(&mut self.list[place.page()].bytes[place.offset()..], expires_at_ms)
    }

    /// Declares the record dead.
    pub fn kill(&mut self, place: Place) {
        let page = &mut self.list[place.page()];
        let bytes = &mut page.bytes[place.offset()..];
        let record = Record::at(bytes);
        let len = record.len() as u32;
        self.volatile -= u32::from(record.is_volatile());
        kill(bytes);
        page.dead += len;
        self.dead += len;
        if page.dead as usize == page.bytes.len() {
            self.free(place.page() as u32);
        }
    }

    /// The page to clean, if too much is dead: the one with the most dead bytes.
    #[inline]
    pub fn to_clean(&self) -> Option<u32> {
        let is_needed = self.dead as usize * LIVE_PER_DEAD > self.units as usize * UNIT_BYTES;
        if is_needed { self.with_most_dead() } else { None }
    }

    #[cold]
    fn with_most_dead(&self) -> Option<u32> {
        let (page, _) = (0..).zip(&self.list).max_by_key(|(_, page)| page.dead)?;
        Some(page)
    }

    /// Moves the live records of a page to other pages. `moved` gets the key of each, its old and its new
    /// place.
    pub fn clean(&mut self, page: u32, mut moved: impl FnMut(&[u8], Place, Place)) {
        if page == self.open {
            self.open_another();
        }
        let Page { bytes, dead, .. } = std::mem::take(&mut self.list[page as usize]);
        self.units -= (allocated(bytes.capacity()) / UNIT_BYTES) as u32;
        self.dead -= dead;
        self.list_as_free(page);
        let mut offset = 0;
        while offset < bytes.len() {
            let record = Record::at(&bytes[offset..]);
            let len = record.len();
            if !record.is_dead() {
                let to = self.page_for(len);
                let target = &mut self.list[to as usize].bytes;
                let new = Place::new(to, target.len());
                target.extend_from_slice(&bytes[offset..offset + len]);
                moved(record.key, Place::new(page, offset), new);
            }
            offset += len;
        }
    }

    /// A page that has memory for that many more bytes.
    fn page_for(&mut self, len: usize) -> u32 {
        if let Some(open) = self.list.get(self.open as usize)
            && open.bytes.len() + len <= open.bytes.capacity().min(PAGE_BYTES)
        {
            return self.open;
        }
        self.make_room(len)
    }

    #[cold]
    fn make_room(&mut self, len: usize) -> u32 {
        if len > PAGE_BYTES {
            let page = self.take_free();
            self.reserve(page, len);
            return page;
        }
        let open = self.list.get(self.open as usize).map(|open| open.bytes.len());
        if open.is_none_or(|used| used + len > PAGE_BYTES) {
            self.open_another();
        }
        let bytes = &self.list[self.open as usize].bytes;
        let capacity = bytes.capacity();
        let larger = (capacity * 3 / 2).min(capacity + STEP_BYTES);
        let capacity = larger.clamp(bytes.len() + len, PAGE_BYTES);
        self.reserve(self.open, capacity);
        self.open
    }

    /// Sets the capacity of a page.
    fn reserve(&mut self, page: u32, capacity: usize) {
        let page = &mut self.list[page as usize];
        self.units -= units(page);
        page.bytes.reserve_exact(capacity - page.bytes.len());
        self.units += units(page);
    }

    fn open_another(&mut self) {
        let new = self.take_free();
        if new != self.open {
            let old = &mut self.list[self.open as usize];
            self.list[new as usize].next = std::mem::replace(&mut old.next, NONE);
            self.open = new;
        }
    }

    /// Takes a page without memory off the list, or adds one.
    fn take_free(&mut self) -> u32 {
        let next = self.list.get(self.open as usize).map_or(NONE, |open| open.next);
        if next != NONE {
            self.list[self.open as usize].next = self.list[next as usize].next;
            self.list[next as usize].next = NONE;
            return next;
        }
        let new = self.list.len() as u32;
        assert!(new != NONE, "there are fewer than 2^32 - 1 pages");
        self.units -= self.list_units();
        grow_slowly(&mut self.list);
        self.list.push(Page { next: NONE, ..Page::default() });
        self.units += self.list_units();
        new
    }

    /// Gives back the memory of a page that has no live record.
    fn free(&mut self, page: u32) {
        let freed = &mut self.list[page as usize];
        self.units -= units(freed);
        self.dead -= freed.dead;
        (freed.bytes, freed.dead) = (Vec::new(), 0);
        if page != self.open {
            self.list_as_free(page);
        }
    }

    fn list_as_free(&mut self, page: u32) {
        let open = &mut self.list[self.open as usize];
        let next = std::mem::replace(&mut open.next, page);
        self.list[page as usize].next = next;
    }

    /// The places and records that are live.
    pub fn iter(&self) -> impl Iterator<Item = (Place, Record<'_>)> {
        (0..)
            .zip(&self.list)
            .flat_map(|(number, page): (u32, _)| {
                let mut offset = 0;
                std::iter::from_fn(move || {
                    let record =
                        Record::at(page.bytes.get(offset..).filter(|rest| !rest.is_empty())?);
                    let place = Place::new(number, offset);
                    offset += record.len();
                    Some((place, record))
                })
            })
            .filter(|(_, record)| !record.is_dead())
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let (mut all_dead, mut all_volatile) = (0, 0);
        for (number, page) in self.list.iter().enumerate() {
            let (mut offset, mut dead, mut live) = (0, 0, 0);
            while offset < page.bytes.len() {
                let record = Record::at(&page.bytes[offset..]);
                offset += record.len();
                if record.is_dead() {
                    dead += record.len() as u32;
                } else {
                    live += 1;
                    all_volatile += u32::from(record.is_volatile());
                }
            }
            ensure!(dead == page.dead, "page {number}: {dead} bytes are dead, not {}", page.dead);
            let is_open = number == self.open as usize;
            ensure!(
                live > 0 || is_open || page.bytes.capacity() == 0,
                "page {number} is not freed"
            );
            all_dead += dead;
        }
        ensure!(all_dead == self.dead, "{all_dead} bytes are dead, not {}", self.dead);
        let units = self.counted_units();
        ensure!(units == self.units, "pages take {units} units, not {}", self.units);
        ensure!(all_volatile == self.volatile, "{all_volatile} expire, not {}", self.volatile);
        let empty = |page: &&Page| page.bytes.capacity() == 0;
        let open_is_empty = self.list.get(self.open as usize).filter(empty).is_some();
        let expected = self.list.iter().filter(empty).count() - usize::from(open_is_empty);
        let (mut listed, mut next) =
            (0, self.list.get(self.open as usize).map_or(NONE, |p| p.next));
        while next != NONE {
            let page = self.list.get(next as usize).filter(empty);
            let page = page.ok_or_else(|| format!("page {next} is listed as free"))?;
            listed += 1;
            ensure!(listed <= expected, "more pages are listed as free than there are");
            next = page.next;
        }
        ensure!(listed == expected, "{listed} pages are listed as free, not {expected}");
        Ok(())
    }
}
