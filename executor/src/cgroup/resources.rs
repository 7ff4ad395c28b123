//! What a container may use, and what that is called in the files of each version of control groups.

/// Limits and shares of a container. Nothing given: whatever the group above it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Memory and swap together; twice the memory where only that is limited, as in docker.
    pub memory_and_swap: Option<Amount>,
    /// Bytes that the kernel tries to leave to the container when memory is short.
    pub reservation: Option<u64>,
    /// Of the processors, relative to others; 1024 is the usual share.
    pub shares: Option<u64>,
    /// Microseconds of processor time in each period; none is no limit.
    pub quota: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Lists as in `0-2,7`.
    pub cpus: Option<String>,
    pub mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The group below which the container's is made, from the root of each hierarchy; else the one that we are in, or
    /// near it.
    pub parent: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Bytes(u64),
    Unlimited,
}

/// A value for a file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Nobody asked for it by name, so it may be that the kernel has no such file.
    pub(super) implied: bool,
}

/// What the kernel takes where none is given, in microseconds.
const PERIOD: u64 = 100_000;

impl Resources {
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }

    /// The controllers that they need, in version 2's names.
    pub(super) fn controllers(&self) -> Vec<&'static str> {
        let memory = self.memory.is_some() || self.memory_and_swap.is_some() || self.reservation.is_some();
        let cpu = self.shares.is_some() || self.quota.is_some() || self.period.is_some();
        let cpuset = self.cpus.is_some() || self.mems.is_some();
        let all = [("memory", memory), ("cpu", cpu), ("cpuset", cpuset), ("pids", self.pids.is_some())];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
    }

    /// In the order in which the kernel takes them: the total of memory and swap can't be less than the memory.
    pub(super) fn v1(&self) -> Vec<Setting> {
        let mut list = Vec::new();
        list.extend(self.memory.map(|bytes| setting("memory", "memory.limit_in_bytes", bytes)));
        let total = self.total().map(|total| match total {
            Amount::Bytes(bytes) => setting("memory", TOTAL_V1, bytes),
            Amount::Unlimited => setting("memory", TOTAL_V1, -1),
        });
        list.extend(total.map(|total| Setting { implied: self.memory_and_swap.is_none(), ..total }));
        list.extend(self.reservation.map(|bytes| setting("memory", "memory.soft_limit_in_bytes", bytes)));
        list.extend(self.shares.map(|shares| setting("cpu", "cpu.shares", shares)));
        list.extend(self.period.map(|period| setting("cpu", "cpu.cfs_period_us", period)));
        list.extend(self.quota.map(|quota| setting("cpu", "cpu.cfs_quota_us", quota)));
        list.extend(self.everywhere());
        list
    }

    pub(super) fn v2(&self) -> Vec<Setting> {
        let mut list = Vec::new();
        list.extend(self.memory.map(|bytes| setting("memory", "memory.max", bytes)));
        let swap = self.total().map(|total| match total {
            Amount::Bytes(bytes) => {
                setting("memory", "memory.swap.max", bytes.saturating_sub(self.memory.unwrap_or(0)))
            }
            Amount::Unlimited => setting("memory", "memory.swap.max", "max"),
        });
        list.extend(swap.map(|swap| Setting { implied: self.memory_and_swap.is_none(), ..swap }));
        list.extend(self.reservation.map(|bytes| setting("memory", "memory.low", bytes)));
        list.extend(self.shares.map(|shares| setting("cpu", "cpu.weight", weight(shares))));
        if self.quota.is_some() || self.period.is_some() {
            let quota = self.quota.map_or("max".to_owned(), |quota| quota.to_string());
            let period = self.period.unwrap_or(PERIOD);
            list.push(setting("cpu", "cpu.max", format!("{quota} {period}")));
        }
        list.extend(self.everywhere());
        list
    }

    fn everywhere(&self) -> Vec<Setting> {
        let mut list = Vec::new();
        list.extend(self.cpus.as_ref().map(|cpus| setting("cpuset", "cpuset.cpus", cpus)));
        list.extend(self.mems.as_ref().map(|mems| setting("cpuset", "cpuset.mems", mems)));
        list.extend(self.pids.map(|pids| setting("pids", "pids.max", pids)));
        list
    }

    fn total(&self) -> Option<Amount> {
        self.memory_and_swap.or(self.memory.map(|bytes| Amount::Bytes(bytes.saturating_mul(2))))
    }
}

const TOTAL_V1: &str = "memory.memsw.limit_in_bytes";

fn setting(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { controller, file, value: value.to_string(), implied: false }
}

/// Shares are 2 to 262144 and usually 1024, weights 1 to 10000 and usually 100. A curve through these three points, the
/// one that container runtimes agreed on, keeps what is usual usual; a straight line would make 1024 a weight of 39.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "it is small")]
    let power = (shares as f64).log2();
    let exponent = (power * power + 125.0 * power) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight
}

/// The numbers of a list as the kernel writes and takes it, `0-2,7`; None for what is none.
pub(crate) fn numbers(list: &str) -> Option<std::collections::BTreeSet<u32>> {
    let mut found = std::collections::BTreeSet::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MOST {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}

/// More than any kernel has processors.
const MOST: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(settings: &[Setting]) -> Vec<String> {
        let mark = |s: &Setting| if s.implied { "?" } else { "" };
        settings.iter().map(|s| format!("{}{}={}", mark(s), s.file, s.value)).collect()
    }

    #[test]
    fn memory_and_swap_are_a_total_in_version_1_and_two_limits_in_version_2() {
        let total = |bytes| Some(Amount::Bytes(bytes));
        for (memory, swap, v1, v2) in [
            (100, None, "?memory.memsw.limit_in_bytes=200", "?memory.swap.max=100"),
            (100, total(100), "memory.memsw.limit_in_bytes=100", "memory.swap.max=0"),
            (100, total(150), "memory.memsw.limit_in_bytes=150", "memory.swap.max=50"),
            (100, Some(Amount::Unlimited), "memory.memsw.limit_in_bytes=-1", "memory.swap.max=max"),
        ] {
            let wanted = Resources { memory: Some(memory), memory_and_swap: swap, ..Resources::default() };
            assert_eq!(lines(&wanted.v1()), ["memory.limit_in_bytes=100", v1], "{swap:?}");
            assert_eq!(lines(&wanted.v2()), ["memory.max=100", v2], "{swap:?}");
            assert_eq!(wanted.controllers(), ["memory"]);
        }
    }

    #[test]
    fn processor_time() {
        let of = |quota, period| Resources { quota, period, ..Resources::default() };
        assert_eq!(lines(&of(Some(50_000), None).v2()), ["cpu.max=50000 100000"]);
        assert_eq!(lines(&of(None, Some(5_000)).v2()), ["cpu.max=max 5000"]);
        // A quota must fit its period when it is written.
        let both = of(Some(500), Some(5_000)).v1();
        assert_eq!(lines(&both), ["cpu.cfs_period_us=5000", "cpu.cfs_quota_us=500"]);
        assert!(of(None, None).is_empty() && of(None, None).controllers().is_empty());
    }

    #[test]
    fn shares_become_weights() {
        let weights = [0, 2, 3, 512, 1024, 2048, 262_144, 1 << 40].map(weight);
        assert_eq!(weights, [1, 1, 2, 59, 100, 174, 10_000, 10_000]);
    }

    #[test]
    fn the_rest_is_called_the_same() {
        let wanted = Resources {
            cpus: Some("0-1".into()),
            mems: Some("0".into()),
            pids: Some(7),
            ..Resources::default()
        };
        assert_eq!(lines(&wanted.v1()), ["cpuset.cpus=0-1", "cpuset.mems=0", "pids.max=7"]);
        assert_eq!(wanted.v1(), wanted.v2());
        assert_eq!(wanted.controllers(), ["cpuset", "pids"]);
    }

    #[test]
    fn lists_of_numbers() {
        let of = |text: &str| numbers(text).map(|set| set.into_iter().collect::<Vec<_>>());
        assert_eq!(of("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(of(""), Some(vec![]));
        for text in ["a", "2-1", "1-", "-1", "0-99999999"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
