//! The flags of `run` and `build` about how much of the machine a container may use, with docker's refusals.

use boxwright_executor::cgroup::{Amount, Resources};
use boxwright_frontend::size;

use crate::error::{Error, Result};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct LimitFlags {
    /// Memory that the container may use
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap together, -1 for any amount [default: twice the memory]
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// Memory to be left to it when there is little
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How many processors' time it may use
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Its share of the processors, where others have 1024
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<String>,
    /// Length of a period of processor time, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// Processor time that it may use in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<String>,
    /// Processors that it may use (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// How many processes and threads it may have; -1 for any number
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<String>,
    /// Control group, from the root of each hierarchy, in which its own is made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

const LEAST_MEMORY: u64 = 6 << 20;
/// Microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const USUAL_PERIOD: u64 = 100_000;
const NANO: u64 = 1_000_000_000;

impl LimitFlags {
    pub(crate) fn resources(&self) -> Result<Resources> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut resources = Resources {
            memory: bytes("-m, --memory", &self.memory)?,
            memory_and_swap: total(&self.memory_swap)?,
            reservation: bytes("--memory-reservation", &self.memory_reservation)?,
            shares: number("-c, --cpu-shares", &self.cpu_shares)?,
            period: number("--cpu-period", &self.cpu_period)?,
            quota: number("--cpu-quota", &self.cpu_quota)?,
            cpus: list("cpus", given(&self.cpuset_cpus))?,
            mems: list("mems", given(&self.cpuset_mems))?,
            pids: number("--pids-limit", &self.pids_limit)?,
            parent: given(&self.cgroup_parent),
        };
        check_memory(&resources)?;
        check_time(&resources)?;
        self.set_time(&mut resources)?;
        Ok(resources)
    }

    fn set_time(&self, resources: &mut Resources) -> Result<()> {
        let Some(text) = &self.cpus else { return Ok(()) };
        let nano = nano(text)?;
        for (name, other) in [("CPU Period", resources.period), ("CPU Quota", resources.quota)] {
            if nano > 0 && other.is_some() {
                return Err(conflict(name));
            }
        }
        // A quota of our own does not count, as in docker: the container's is another one.
        let there = rustix::thread::sched_getaffinity(None).map_or(1, |set| u64::from(set.count()));
        if nano > there * NANO || (nano > 0 && nano < NANO / 100) {
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
            )));
        }
        if nano > 0 {
            resources.period = Some(USUAL_PERIOD);
            resources.quota = Some(nano / (NANO / USUAL_PERIOD));
        }
        Ok(())
    }
}

fn conflict(name: &str) -> Error {
    Error::invalid(format!("conflicting options: Nano CPUs and {name} cannot both be set"))
}

fn check_memory(wanted: &Resources) -> Result<()> {
    let refuse = |reason: &str| Err(Error::invalid(reason));
    match (wanted.memory, wanted.memory_and_swap) {
        (Some(memory), _) if memory < LEAST_MEMORY => return refuse("Minimum memory limit allowed is 6MB"),
        (Some(memory), Some(Amount::Bytes(total))) if total < memory => {
            return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
        }
        (None, Some(Amount::Bytes(_))) => {
            return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
        }
        _ => {}
    }
    match (wanted.memory, wanted.reservation) {
        (_, Some(reservation)) if reservation < LEAST_MEMORY => {
            refuse("Minimum memory reservation allowed is 6MB")
        }
        (Some(memory), Some(reservation)) if memory < reservation => {
            refuse("Minimum memory limit can not be less than memory reservation limit, see usage")
        }
        _ => Ok(()),
    }
}

fn check_time(wanted: &Resources) -> Result<()> {
    if wanted.period.is_some_and(|period| !PERIODS.contains(&period)) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if wanted.quota.is_some_and(|quota| quota < *PERIODS.start()) {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    Ok(())
}

fn wrong(text: &str, flag: &str, reason: &str) -> Error {
    Error::invalid(format!("invalid argument {text:?} for {flag:?} flag: {reason}"))
}

/// None is no limit, as 0 is.
fn bytes(flag: &str, text: &Option<String>) -> Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let bytes = size::parse(text).ok_or_else(|| wrong(text, flag, &format!("invalid size: '{text}'")))?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

fn total(text: &Option<String>) -> Result<Option<Amount>> {
    match text.as_deref() {
        Some("-1") => Ok(Some(Amount::Unlimited)),
        _ => Ok(bytes("--memory-swap", text)?.map(Amount::Bytes)),
    }
}

/// None is no limit, as what is not above 0 is.
fn number(flag: &str, text: &Option<String>) -> Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let number: i64 = text.parse().map_err(|_| wrong(text, flag, "it is no number"))?;
    Ok(u64::try_from(number).ok().filter(|number| *number > 0))
}

/// In billionths of a processor.
fn nano(text: &str) -> Result<u64> {
    let refuse = |reason: &str| wrong(text, "--cpus", reason);
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() + part.len() == 0 {
        return Err(refuse(&format!("failed to parse {text} as a rational number")));
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err(refuse("value is too precise"));
    }
    let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>() };
    let whole = number(whole).ok().and_then(|whole| whole.checked_mul(NANO));
    let part = number(&format!("{part:0<9}")).ok();
    let sum = whole.zip(part).and_then(|(whole, part)| whole.checked_add(part));
    sum.ok_or_else(|| refuse("value is too large"))
}

/// Numbers and ranges. Whether there are such processors is for the kernel to say.
fn list(what: &str, text: Option<String>) -> Result<Option<String>> {
    let number = |text: &str| text.parse::<u32>().ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    match text {
        Some(text) if !text.split(',').all(|part| is_part(part.trim())) => {
            Err(Error::invalid(format!("Invalid value {text} for cpuset {what}")))
        }
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        limits: LimitFlags,
    }

    fn of(line: &str) -> Result<Resources> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        <Flags as clap::Parser>::try_parse_from(words).unwrap().limits.resources()
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let all = of(
            "-m 1g --memory-swap=2g --memory-reservation 512m -c 512 --cpu-period 50000 --cpu-quota 25000 \
                      --cpuset-cpus 0-1,3 --cpuset-mems 0 --pids-limit 10 --cgroup-parent /a/b",
        );
        let expected = Resources {
            memory: Some(1 << 30),
            memory_and_swap: Some(Amount::Bytes(2 << 30)),
            reservation: Some(512 << 20),
            shares: Some(512),
            quota: Some(25_000),
            period: Some(50_000),
            cpus: Some("0-1,3".to_owned()),
            mems: Some("0".to_owned()),
            pids: Some(10),
            parent: Some("/a/b".to_owned()),
        };
        assert_eq!(all.unwrap(), expected);
        assert!(
            of("-m 0 --memory-swap=0 --cpus 0 -c 0 --pids-limit=-1 --cpuset-cpus= --cpu-quota=-1")
                .unwrap()
                .is_empty()
        );
        assert_eq!(of("-m 6m --memory-swap=-1").unwrap().memory_and_swap, Some(Amount::Unlimited));
    }

    #[test]
    fn processors_are_a_quota_of_a_period() {
        for (cpus, quota) in [("1", 100_000), ("0.5", 50_000), (".25", 25_000), ("0.01", 1_000)] {
            let limits = of(&format!("--cpus {cpus}")).unwrap();
            assert_eq!((limits.quota, limits.period), (Some(quota), Some(100_000)), "{cpus}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (line, words) in [
            ("-m 5m", "Minimum memory limit allowed is 6MB"),
            ("-m lots", "invalid argument \"lots\" for \"-m, --memory\" flag: invalid size: 'lots'"),
            ("-m=-1", "invalid size: '-1'"),
            ("-m 8m --memory-swap 7m", "memoryswap limit should be larger than memory limit"),
            ("--memory-swap 7m", "always set the Memory limit when using Memoryswap"),
            ("--memory-reservation 1m", "Minimum memory reservation allowed is 6MB"),
            ("-m 8m --memory-reservation 9m", "can not be less than memory reservation"),
            ("--cpus x", "failed to parse x as a rational number"),
            ("--cpus 0.0000000001", "value is too precise"),
            ("--cpus 100000", "range of CPUs is from 0.01 to"),
            ("--cpus 99999999999999999999", "value is too large"),
            ("--cpus 0.001", "range of CPUs is from 0.01 to"),
            ("--cpus 1 --cpu-period 5000", "Nano CPUs and CPU Period cannot both be set"),
            ("--cpus 1 --cpu-quota 5000", "Nano CPUs and CPU Quota cannot both be set"),
            ("--cpu-period 10", "CPU cfs period can not be less than 1ms"),
            ("--cpu-quota 10", "CPU cfs quota can not be less than 1ms"),
            ("--cpuset-cpus 1-0", "Invalid value 1-0 for cpuset cpus"),
            ("--cpuset-mems a", "Invalid value a for cpuset mems"),
            ("--pids-limit many", "invalid argument \"many\" for \"--pids-limit\" flag"),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
