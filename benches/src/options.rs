//! The command line options.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) const USAGE: &str = "\
Measures external-endpoints beside HAProxy and beside bare loops that do the same work.

  --only PART[,PART]   only these: tcp, accept, http, exec, native, memory, detection,
                       ten-thousand, names, cluster
  --targets N          targets of the tcp, accept and http runs; exec has at most as many
                       (default 5000)
  --seconds S          how long each run is measured (default 20)
  --rounds R           how often the subjects take turns; the median counts (default 3)
  --daemon PATH        the daemon (default target/release/external-endpoints)
  --before PATH        another build of the daemon, measured in turn with it (tcp, accept, http,
                       exec, memory; names has the growth of the program)
  --results FILE       where the figures are kept (default benches/results.json)
  --smoke              everything, small and short, to see that it works; keeps no figures
  --soak               instead of all this: 2000 targets (or N), a tenth of them bad, for a long
                       time
  --minutes M          how long the soak takes (default 10)
";

/// The parts in the order in which they run.
pub(crate) const PARTS: [&str; 10] = [
    "tcp",
    "accept",
    "http",
    "exec",
    "native",
    "memory",
    "detection",
    "ten-thousand",
    "names",
    "cluster",
];

#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub parts: Vec<String>,
    pub targets: usize,
    pub interval: Duration,
    pub time: Duration,
    pub rounds: usize,
    pub daemon: PathBuf,
    pub before: Option<PathBuf>,
    pub results: PathBuf,
    pub smoke: bool,
    pub soak: Option<Duration>,
}

/// Parses the arguments. Returns `None` if they ask for help.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let arguments: Vec<String> = arguments.collect();
    let typed = |option: &str| arguments.iter().any(|argument| argument == option);
    let mut options = if typed("--smoke") { smoke() } else { full() };
    let (soak, mut minutes) = (typed("--soak"), if options.smoke { 0.1 } else { 10.0 });
    if soak && !options.smoke {
        options.targets = 2_000;
    }
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{option} needs a value"));
        match &*option {
            "--only" => options.parts = parts(&value()?)?,
            "--targets" => options.targets = positive(&option, &value()?)?,
            "--seconds" => options.time = Duration::from_secs(positive(&option, &value()?)? as u64),
            "--rounds" => options.rounds = positive(&option, &value()?)?,
            "--daemon" => options.daemon = value()?.into(),
            "--before" => options.before = Some(value()?.into()),
            "--results" => options.results = value()?.into(),
            "--minutes" => minutes = value()?.parse::<f64>().context("--minutes")?,
            "--soak" | "--smoke" => {}
            "--help" | "-h" => return Ok(None),
            other => bail!("there is no option {other}\n\n{USAGE}"),
        }
    }
    options.soak = if soak {
        Some(Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?)
    } else {
        None
    };
    Ok(Some(options))
}

fn full() -> Options {
    Options {
        parts: PARTS.map(str::to_owned).to_vec(),
        targets: 5000,
        interval: Duration::from_secs(1),
        time: Duration::from_secs(20),
        rounds: 3,
        daemon: "target/release/external-endpoints".into(),
        before: None,
        results: "benches/results.json".into(),
        smoke: false,
        soak: None,
    }
}

fn smoke() -> Options {
    Options {
        targets: 120,
        interval: Duration::from_millis(200),
        time: Duration::from_millis(600),
        rounds: 1,
        smoke: true,
        ..full()
    }
}

fn parts(list: &str) -> Result<Vec<String>> {
    let asked: Vec<&str> = list.split(',').collect();
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(part)) {
        bail!("there is no part {unknown}; there are {}", PARTS.join(", "));
    }
    Ok(PARTS.iter().filter(|part| asked.contains(part)).map(|part| (*part).to_owned()).collect())
}

fn positive(option: &str, value: &str) -> Result<usize> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("{option} {value}: this takes a number above 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn nothing_typed_is_everything() {
        assert_eq!(parsed("").expect("good"), Some(full()));
    }

    #[test]
    fn parts_run_in_their_own_order() {
        let options = parsed("--only http,tcp --targets 7 --seconds 2 --rounds 1")
            .expect("good")
            .expect("not help");
        assert_eq!(options.parts, ["tcp", "http"]);
        assert_eq!((options.targets, options.time, options.rounds), (7, Duration::from_secs(2), 1));
    }

    #[test]
    fn another_build_can_be_measured_beside() {
        let options = parsed("--before target/before").expect("good").expect("not help");
        assert_eq!(options.before, Some("target/before".into()));
        assert!(parsed("--before").is_err());
    }

    #[test]
    fn smoke_can_still_be_told_more() {
        let options = parsed("--targets 9 --smoke").expect("good").expect("not help");
        assert!(options.smoke && options.targets == 9 && options.interval < Duration::from_secs(1));
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "--only udp",
            "--targets",
            "--targets 0",
            "--seconds x",
            "--minutes -1 --soak",
            "--bogus",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
