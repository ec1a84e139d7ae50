//! Limits of memory: which keys are evicted, and how much memory there is.

use std::fs;

/// Which keys `maxmemory-policy` lets be evicted, and in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EvictionPolicy {
    /// Only keys that expire.
    pub volatile: bool,
    /// Which of them first.
    pub order: EvictionOrder,
}

/// Which keys are evicted first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictionOrder {
    /// Those that have not been used for the longest time.
    Lru,
    /// Those that have been used least often.
    Lfu,
    /// Those that have not been modified for the longest time.
    Lrm,
    /// Any.
    Random,
    /// Those that expire soonest.
    Ttl,
}

/// The values of `maxmemory-policy`: in the order of Redis 8.2, then those that Redis 8.6 added.
pub(super) const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
    "volatile-lrm",
    "allkeys-lrm",
];

/// Whether the policy with that index counts the uses of keys (LFU). Asked at every lookup.
#[inline(always)]
pub(super) fn counts_uses(index: usize) -> bool {
    matches!(index, 1 | 5)
}

/// Whether with the policy of that index only a change counts as a use (LRM). Asked by every command.
#[inline(always)]
pub(super) fn ignores_reads(index: usize) -> bool {
    matches!(index, 8 | 9)
}

/// The policy with that index in [`POLICIES`]; `None` if no key is evicted.
pub(super) fn policy(index: usize) -> Option<EvictionPolicy> {
    use EvictionOrder::{Lfu, Lrm, Lru, Random, Ttl};
    let (volatile, order) = match index {
        0..=3 => (true, [Lru, Lfu, Random, Ttl][index]),
        4..=6 => (false, [Lru, Lfu, Random][index - 4]),
        8 | 9 => (index == 8, Lrm),
        _ => return None,
    };
    Some(EvictionPolicy { volatile, order })
}

/// The memory of the machine, and what the control group of the process may use of it, in bytes. Known only
/// on Linux.
#[derive(Clone, Copy, Debug)]
pub struct MachineMemory {
    /// All memory.
    pub total: u64,
    /// The limit of the control group, if it is less.
    pub limit: Option<u64>,
}

impl MachineMemory {
    /// Asks the kernel.
    pub fn read() -> Option<MachineMemory> {
        let total = kilobytes("/proc/meminfo", "MemTotal:")?;
        // In a container, its own group is mounted at the root: version 2, then version 1.
        let limits = ["memory.max", "memory/memory.limit_in_bytes"];
        let limit = limits.iter().find_map(|name| {
            fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok()
        });
        Some(MachineMemory { total, limit: limit.filter(|&limit| limit < total) })
    }

    /// What the process may use.
    pub fn usable(self) -> u64 {
        self.limit.unwrap_or(self.total)
    }
}

/// The value of the line with this name in a file of `/proc`, converted from kilobytes to bytes.
pub fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let lines = fs::read_to_string(path).ok()?;
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_means_what_its_name_says() {
        for (index, name) in POLICIES.iter().enumerate() {
            let Some(policy) = policy(index) else {
                assert_eq!(*name, "noeviction");
                continue;
            };
            let keys = if policy.volatile { "volatile" } else { "allkeys" };
            assert_eq!(counts_uses(index), policy.order == EvictionOrder::Lfu);
            assert_eq!(ignores_reads(index), policy.order == EvictionOrder::Lrm);
            assert_eq!(*name, format!("{keys}-{:?}", policy.order).to_lowercase());
        }
    }
}
