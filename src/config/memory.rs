//! Limits of memory: which keys are evicted, and how much memory there is.

use std::fs;
use std::path::Path;

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

/// The memory of the machine, and what the control groups of the process may use of it
/// (<https://man7.org/linux/man-pages/man7/cgroups.7.html>), in bytes. Known only on Linux.
#[derive(Clone, Copy, Debug)]
pub struct MachineMemory {
    /// All memory.
    pub total: u64,
    /// The least limit of a control group, if it is less.
    pub limit: Option<u64>,
}

impl MachineMemory {
    /// Asks the kernel.
    pub fn read() -> Option<MachineMemory> {
        let total = kilobytes("/proc/meminfo", "MemTotal:")?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = group_limit(Path::new("/sys/fs/cgroup"), &groups);
        Some(MachineMemory { total, limit: limit.filter(|&limit| limit < total) })
    }

    /// What the process may use.
    pub fn usable(self) -> u64 {
        self.limit.unwrap_or(self.total)
    }
}

/// The least limit of the control groups of a process and of those that contain them. `groups` is what
/// `/proc/self/cgroup` says. In a container its paths may be those of the machine, and lead nowhere; then the
/// root is the container's own group.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"), // version 2
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        groups.map(|group| mount.join(group).join(file)).collect()
    });
    limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).min()
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
    fn the_least_limit_of_the_groups_counts() -> std::io::Result<()> {
        let root = std::env::temp_dir().join(format!("respite-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(path, text)
        };
        let limit = |groups| group_limit(&root, groups);
        write("system.slice/a.service/memory.max", "3000\n")?;
        write("system.slice/memory.max", "max\n")?;
        assert_eq!(limit("0::/system.slice/a.service\n"), Some(3000));
        assert_eq!(limit("0::/system.slice\n"), None);
        write("system.slice/memory.max", "2000\n")?;
        assert_eq!(limit("0::/system.slice/a.service\n"), Some(2000), "of the group around it");
        write("memory/memory.limit_in_bytes", "5000\n")?;
        write("memory/b/memory.limit_in_bytes", "4000\n")?;
        assert_eq!(limit("4:memory:/b\n3:cpu:/\n0::/\n"), Some(4000), "version 1");
        assert_eq!(limit("4:cpu,memory:/docker/4711\n"), Some(5000), "a path of the machine");
        assert_eq!(limit("9:name=systemd:/b\n"), None);
        assert_eq!(limit(""), None);
        fs::remove_dir_all(root)
    }

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
