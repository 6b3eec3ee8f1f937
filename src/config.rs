//! The configuration: what the texts of [`crate::settings`] mean.
//!
//! Everything that makes no sense is found here, before any dump is read. Every error names the
//! place that the value came from, and how to write one that makes sense.
//!
//! # Credentials
//!
//! What an address itself says counts. A user or password that it lacks comes from
//! `username-file` or `username`, `password-file` or `password` (the highest layer, and in one
//! layer the file), else it is RabbitMQ's own default, `guest`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dump::{Kind, Version};
use crate::extraction;
use crate::fs::{self, FileSystem};
use crate::human::{parse_bytes, parse_duration};
use crate::message::Profile;
use crate::rabbitmq::stream::StreamConfig;
use crate::rabbitmq::{AmqpAddress, DeclaredQueue, QueueType, RabbitMqConfig, Topology};
use crate::settings::{ConfigError, Layer, Setting, Value, Values};

/// Which state marker is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A directory with dumps, or one dump.
    pub root: PathBuf,
    /// `root` as it was configured, for errors about it.
    pub root_value: Value,
    /// The version, if not the newest.
    pub version: Option<Version>,
    /// Where the state is, if not beside the dumps.
    pub state_directory: Option<PathBuf>,
}

/// Where messages go.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// Into files in a directory.
    Spool(PathBuf),
    /// To RabbitMQ.
    RabbitMq(RabbitMqConfig),
    /// To streams of a RabbitMQ, whose publishers are known once the run is planned.
    Stream(StreamConfig),
    /// Nowhere.
    Null,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// Bars on a terminal, else lines.
    Auto,
    /// A log line now and then.
    Lines,
    /// Not at all.
    Never,
}

/// How the program talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Whether log lines are JSON.
    pub is_json: bool,
    /// The least important lines to write.
    pub level: tracing::Level,
    /// How progress is shown.
    pub progress: ProgressMode,
}

/// Where the program can be watched.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// The address to listen on.
    pub address: SocketAddr,
    /// The address as it was configured, for errors about it.
    pub value: Value,
}

impl ListenConfig {
    /// For a command that runs once: nobody watches it unless they say so, because several may run
    /// on one machine, and its exit code tells what became of it.
    pub const OFF: &str = "off";
    /// For a command that goes on for years: where earlier extractors were watched.
    pub const ON: &str = "127.0.0.1:8000";

    /// Where `values` say, or else `default`; `None` for nowhere.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(values: &Values, default: &str) -> Result<Option<Self>, ConfigError> {
        let value = values.get("listen").cloned().unwrap_or_else(|| Value {
            text: default.to_owned(),
            layer: Layer::Default,
            origin: "default".to_owned(),
        });
        if value.text == Self::OFF {
            return Ok(None);
        }
        let text = match value.text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => value.text.clone(),
        };
        match text.parse() {
            Ok(address) => Ok(Some(Self { address, value })),
            Err(_) => Err(value.error(format!(
                "`{}` is no address to listen on; write one like 127.0.0.1:8000 or [::1]:8000, \
                 0.0.0.0:8000 for all of this machine's, or off",
                value.text
            ))),
        }
    }
}

/// Everything that `download` needs to know.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// Where the dumps are to be; made if it is missing.
    pub directory: PathBuf,
    /// The version, if not the newest.
    pub version: Option<Version>,
    /// Where the state is, if not beside the dumps.
    pub state_directory: Option<PathBuf>,
    /// The host's root, with a slash at its end.
    pub url: String,
    /// How the program talks.
    pub log: LogConfig,
}

impl DownloadConfig {
    /// What `values` say of downloads.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn new(fs: &dyn FileSystem, values: &Values) -> Result<Self, ConfigError> {
        let place = Place::new(fs, values)?;
        let is_file = fs.metadata(&place.root).is_ok_and(|found| !found.is_dir);
        if is_file {
            let root = place.root_value;
            return Err(root.error(format!("{} is a file; name a directory", root.text)));
        }
        Ok(Self {
            directory: place.root,
            version: place.version,
            state_directory: place.state_directory,
            url: download_url(required(values, "download-url"))?,
            log: LogConfig::new(values)?,
        })
    }
}

/// Everything that `follow` needs to know.
#[derive(Clone, Debug)]
pub struct FollowConfig {
    /// How the newest version is fetched.
    pub download: DownloadConfig,
    /// How a version is published. Which one is not in it.
    pub run: Config,
    /// How long to wait after a version.
    pub check_every: Duration,
    /// How many versions stay on the disk; all if `None`.
    pub keep: Option<usize>,
}

impl FollowConfig {
    /// What `values` say of it; what is about one run alone, a version or processing it anew, has no
    /// meaning here.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn new(fs: &dyn FileSystem, values: &Values) -> Result<Self, ConfigError> {
        let days = number(values, "check-days", 1, 365)?;
        let keep = values
            .get("keep")
            .map(|_| number(values, "keep", 1, 10_000));
        Ok(Self {
            download: DownloadConfig {
                version: None,
                ..DownloadConfig::new(fs, values)?
            },
            run: Config {
                is_forced: false,
                ..Config::new(fs, values)?
            },
            check_every: Duration::from_secs(days * 86_400),
            keep: keep.transpose()?.map(to_usize),
        })
    }
}

/// Everything that `tune` needs to know.
#[derive(Clone, Debug)]
pub struct TuneConfig {
    /// The run that it is about.
    pub run: Config,
    /// How often that is interrupted.
    pub failures_per_day: f64,
}

impl TuneConfig {
    /// What `values` say of it.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn new(fs: &dyn FileSystem, values: &Values) -> Result<Self, ConfigError> {
        Ok(Self {
            run: Config::new(fs, values)?,
            failures_per_day: failures_per_day(required(values, "failures-per-day"))?,
        })
    }
}

fn failures_per_day(value: &Value) -> Result<f64, ConfigError> {
    match value.text.parse() {
        Ok(number) if (0.001..=86_400.0).contains(&number) => Ok(number),
        _ => Err(value.error(format!(
            "`{}` makes no sense here; write a number from 0.001 to 86400",
            value.text
        ))),
    }
}

fn download_url(value: &Value) -> Result<String, ConfigError> {
    let url = value.text.trim_end_matches('/');
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    match rest.is_some_and(|rest| !rest.is_empty()) {
        true => Ok(format!("{url}/")),
        false => Err(value.error(format!(
            "`{}` is no host; write it like https://data.discogs.com/",
            value.text
        ))),
    }
}

/// Everything that `run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which dumps, and where the state is.
    pub place: Place,
    /// The kinds to process; all if empty.
    pub kinds: Vec<Kind>,
    /// The largest record in bytes of XML.
    pub record_bytes_max: usize,
    /// How many threads read a dump and make messages of it.
    pub source_threads: usize,
    /// The shape of record messages.
    pub profile: Profile,
    /// Where messages go.
    pub broker: BrokerConfig,
    /// What the state machine is told.
    pub extraction: extraction::Options,
    /// Whether the state marker is to be disregarded.
    pub is_forced: bool,
    /// How the program talks.
    pub log: LogConfig,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The most messages or records of a setting; far more than a dump has.
const COUNT_MAX: u64 = 1_000_000_000;
/// The most messages of a window: a message takes some 4 kB.
const WINDOW_MESSAGES_MAX: u64 = 1_000_000;
/// Far more than inflating on one thread can keep busy.
const SOURCE_THREADS_MAX: u64 = 64;
/// The most bytes of a window or a record.
const BYTES_MAX: u64 = 4 << 30;
/// The longest duration: a day.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

impl Place {
    /// The place that `values` name.
    ///
    /// # Errors
    /// A value that makes no sense, or a state directory that is none.
    pub fn new(fs: &dyn FileSystem, values: &Values) -> Result<Self, ConfigError> {
        let root = required(values, "root");
        let version = parsed(values, "dump-version", |text| text.parse())?;
        let state_directory = values
            .get("state-dir")
            .map(|value| directory(fs, value))
            .transpose()?;
        Ok(Self {
            root: PathBuf::from(&root.text),
            root_value: root.clone(),
            version,
            state_directory,
        })
    }
}

impl LogConfig {
    /// What `values` say of the log.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn new(values: &Values) -> Result<Self, ConfigError> {
        const FORMATS: &[(&str, bool)] = &[("text", false), ("json", true)];
        const LEVELS: &[(&str, tracing::Level)] = &[
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ];
        const MODES: &[(&str, ProgressMode)] = &[
            ("auto", ProgressMode::Auto),
            ("lines", ProgressMode::Lines),
            ("never", ProgressMode::Never),
        ];
        Ok(Self {
            is_json: choice(values, "log-format", FORMATS)?,
            level: choice(values, "log-level", LEVELS)?,
            progress: choice(values, "progress", MODES)?,
        })
    }
}

impl Config {
    /// The configuration that `values` describe. Reads the files that they name.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn new(fs: &dyn FileSystem, values: &Values) -> Result<Self, ConfigError> {
        const PROFILES: &[(&str, Profile)] =
            &[("normalised", Profile::Normalised), ("raw", Profile::Raw)];
        const TOPOLOGIES: &[(&str, bool)] = &[("fanout", true), ("topic", false)];
        let mut warnings = values.warnings.clone();
        let is_fanout = choice(values, "topology", TOPOLOGIES)?;
        let broker = broker(fs, values, is_fanout, &mut warnings)?;
        let mut extraction = extraction_options(values)?;
        extraction.announces_completion = is_fanout;
        match &broker {
            BrokerConfig::RabbitMq(RabbitMqConfig {
                addresses,
                connect_timeout: each,
                ..
            })
            | BrokerConfig::Stream(StreamConfig {
                addresses,
                connect_timeout: each,
                ..
            }) => extraction.link.connect_timeout = connect_timeout(addresses, *each),
            BrokerConfig::Spool(_) | BrokerConfig::Null => {}
        }
        let record_bytes_max = bounded_bytes(values, "record-bytes-max")?;
        let source_threads = number(values, "source-threads", 1, SOURCE_THREADS_MAX)?;
        Ok(Self {
            place: Place::new(fs, values)?,
            kinds: kinds(values)?,
            record_bytes_max,
            source_threads: to_usize(source_threads),
            profile: choice(values, "message-profile", PROFILES)?,
            broker,
            extraction,
            is_forced: boolean(values, "reprocess")?,
            log: LogConfig::new(values)?,
            warnings,
        })
    }
}

/// How a value is printed: a password is not.
pub fn mask(setting: &Setting, text: &str) -> String {
    match setting.key {
        "password" => "***".to_owned(),
        "broker" => split_urls(text)
            .into_iter()
            .map(mask_url)
            .collect::<Vec<_>>()
            .join(","),
        _ => text.to_owned(),
    }
}

/// `amqp://user:secret@host` as `amqp://user:***@host`.
fn mask_url(url: &str) -> String {
    let masked = || {
        let (scheme, rest) = url.split_once("://")?;
        let (userinfo, location) = rest.rsplit_once('@')?;
        let (user, _) = userinfo.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{location}"))
    };
    masked().unwrap_or_else(|| url.to_owned())
}

fn extraction_options(values: &Values) -> Result<extraction::Options, ConfigError> {
    let mut options = extraction::Options::default();
    options.save.interval = number(values, "state-save-interval", 1, COUNT_MAX)?;
    options.save.age_max = time_limit(values, "state-save-max-age")?;
    options.link.confirm_timeout = time_limit(values, "confirm-timeout")?;
    options.stop_timeout = duration(values, "stop-timeout", Duration::ZERO)?;
    options.window_messages = to_usize(number(values, "window-messages", 1, WINDOW_MESSAGES_MAX)?);
    options.window_bytes = bounded_bytes(values, "window-bytes")?;
    options.dead_letters_max = number(values, "dead-letters-max", 0, COUNT_MAX)?;
    Ok(options)
}

/// Every address has its own time-out; the state machine must not give up before the last.
fn connect_timeout(addresses: &[AmqpAddress], each: Duration) -> Duration {
    let addresses = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let all = each.saturating_mul(addresses);
    let default = extraction::Options::default().link.connect_timeout;
    default.max(all + each)
}

// The broker.

fn broker(
    fs: &dyn FileSystem,
    values: &Values,
    is_fanout: bool,
    warnings: &mut Vec<String>,
) -> Result<BrokerConfig, ConfigError> {
    let value = required(values, "broker");
    let urls = split_urls(&value.text);
    let is_of = |schemes: [&str; 2]| {
        let is_one = |url: &&str| schemes.iter().any(|scheme| url.starts_with(scheme));
        urls.iter().all(is_one)
    };
    let mut addresses = || {
        let addresses = urls.iter();
        addresses
            .map(|url| address(fs, values, value, url, warnings))
            .collect::<Result<Vec<_>, _>>()
    };
    if is_of(["amqp://", "amqps://"]) {
        let config = rabbitmq(fs, values, addresses()?, is_fanout)?;
        return Ok(BrokerConfig::RabbitMq(config));
    }
    if is_of(["rabbitmq-stream://", "rabbitmq-stream+tls://"]) {
        let config = stream(fs, values, addresses()?, is_fanout)?;
        return Ok(BrokerConfig::Stream(config));
    }
    let &[url] = urls.as_slice() else {
        return Err(value.error("only addresses of one RabbitMQ cluster can be several"));
    };
    match url.split_once(':') {
        Some(("file", path)) => spool_directory(fs, value, path).map(BrokerConfig::Spool),
        Some(("null", "" | "//")) => Ok(BrokerConfig::Null),
        _ => Err(value.error(format!(
            "`{}` is no broker; write file:DIR, amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://.., \
             rabbitmq-stream://.., rabbitmq-stream+tls://.. or null:",
            mask_url(url)
        ))),
    }
}

/// Splits at commas in front of a scheme; a comma elsewhere may be part of a password.
fn split_urls(text: &str) -> Vec<&str> {
    const SCHEMES: [&str; 6] = [
        "amqp://",
        "amqps://",
        "rabbitmq-stream://",
        "rabbitmq-stream+tls://",
        "file:",
        "null:",
    ];
    let mut urls = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(comma) = rest[from..].find(',').map(|place| from + place) {
        let next = rest[comma + 1..].trim_start();
        if SCHEMES.iter().any(|scheme| next.starts_with(scheme)) {
            urls.push(rest[..comma].trim());
            (rest, from) = (next, 0);
        } else {
            from = comma + 1;
        }
    }
    urls.push(rest.trim());
    urls
}

fn address(
    fs: &dyn FileSystem,
    values: &Values,
    value: &Value,
    url: &str,
    warnings: &mut Vec<String>,
) -> Result<AmqpAddress, ConfigError> {
    let mut address: AmqpAddress = url
        .parse()
        .map_err(|error| value.error(format!("{error}")))?;
    if let Some(odd) = address.host.find([',', ' ', '@']) {
        return Err(value.error(format!(
            "`{}` is no host; write the scheme, like amqp://, in front of every address",
            &address.host[odd..]
        )));
    }
    let (has_user, has_password) = has_credentials(url);
    for (key, is_in_url, part) in [
        ("username", has_user, &mut address.username),
        ("password", has_password, &mut address.password),
    ] {
        match credential(fs, values, key)? {
            Some((_, origin)) if is_in_url => warnings.push(format!(
                "{origin} is ignored: the address from {} has a {key}",
                value.origin
            )),
            Some((text, _)) => *part = text,
            None => {}
        }
    }
    Ok(address)
}

/// Whether an address says a user, and a password.
fn has_credentials(url: &str) -> (bool, bool) {
    let authority = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .unwrap_or_default();
    match authority.rsplit_once('@') {
        None => (false, false),
        Some((userinfo, _)) => match userinfo.split_once(':') {
            None => (!userinfo.is_empty(), false),
            Some((user, _)) => (!user.is_empty(), true),
        },
    }
}

/// A user or password that is not in an address, and where it came from.
fn credential(
    fs: &dyn FileSystem,
    values: &Values,
    key: &str,
) -> Result<Option<(String, String)>, ConfigError> {
    let (file_key, max) = (format!("{key}-file"), 255);
    let plain = values.get(key);
    let file = values.get(&file_key);
    let layer = |value: Option<&Value>| value.map(|value| value.layer);
    let (value, text) = match (file, plain) {
        (Some(file), _) if layer(Some(file)) >= layer(plain) => (file, read_secret(fs, file)?),
        (_, Some(plain)) => (plain, plain.text.clone()),
        _ => return Ok(None),
    };
    match text.len() {
        length if length > max => {
            Err(value.error(format!("longer than the {max} bytes that RabbitMQ allows")))
        }
        _ => Ok(Some((text, value.origin.clone()))),
    }
}

/// The content of a secret's file without the line end that editors put there.
fn read_secret(fs: &dyn FileSystem, value: &Value) -> Result<String, ConfigError> {
    let text = read_text(fs, value)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.is_empty() {
        true => Err(value.error(format!("{} is empty", value.text))),
        false => Ok(secret.to_owned()),
    }
}

fn rabbitmq(
    fs: &dyn FileSystem,
    values: &Values,
    addresses: Vec<AmqpAddress>,
    is_fanout: bool,
) -> Result<RabbitMqConfig, ConfigError> {
    let mut config = RabbitMqConfig::new(addresses);
    let prefix = prefix(values)?;
    config.topology = match is_fanout {
        true => Topology::Fanout { prefix },
        false => Topology::topic(),
    };
    if let Some(value) = values.get("declare-queues") {
        for name in items(&value.text) {
            if name.len() > 200 {
                return Err(value.error(format!("`{name}` is longer than 200 bytes")));
            }
            config.queues.push(DeclaredQueue {
                name: name.to_owned(),
                queue_type: QueueType::default(),
            });
        }
    }
    config.ca_certificates = ca_certificates(fs, values)?;
    Ok(config)
}

fn stream(
    fs: &dyn FileSystem,
    values: &Values,
    addresses: Vec<AmqpAddress>,
    is_fanout: bool,
) -> Result<StreamConfig, ConfigError> {
    if let Some(value) = values.get("declare-queues") {
        return Err(value.error("streams have no queues; leave it out"));
    }
    if !is_fanout {
        let value = required(values, "topology");
        return Err(value.error("there is a stream for each kind; leave it out"));
    }
    let mut config = StreamConfig::new(addresses);
    config.prefix = prefix(values)?;
    config.ca_certificates = ca_certificates(fs, values)?;
    Ok(config)
}

fn prefix(values: &Values) -> Result<String, ConfigError> {
    let prefix = required(values, "exchange-prefix");
    match prefix.text.len() {
        1..=200 => Ok(prefix.text.clone()),
        _ => Err(prefix.error("write a prefix of 1 to 200 bytes")),
    }
}

fn ca_certificates(fs: &dyn FileSystem, values: &Values) -> Result<Option<String>, ConfigError> {
    let Some(value) = values.get("ca-file") else {
        return Ok(None);
    };
    let pem = read_text(fs, value)?;
    match pem.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(Some(pem)),
        false => Err(value.error(format!("{} holds no certificate in PEM form", value.text))),
    }
}

/// The directory of `file:DIR` or `file:///DIR`; it is made when the spool is opened.
fn spool_directory(fs: &dyn FileSystem, value: &Value, path: &str) -> Result<PathBuf, ConfigError> {
    let path = match path.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err(value.error("write file:DIR, or file:/// and an absolute path")),
        None => path,
    };
    if path.is_empty() {
        return Err(value.error("name a directory, as in file:spool"));
    }
    match fs.metadata(Path::new(path)) {
        Ok(metadata) if !metadata.is_dir => {
            Err(value.error(format!("{path} is a file; name a directory")))
        }
        _ => Ok(PathBuf::from(path)),
    }
}

// Values.

fn required<'a>(values: &'a Values, key: &str) -> &'a Value {
    let value = values.get(key);
    value.expect("a setting with a default has a value")
}

fn parsed<T>(
    values: &Values,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let parse = |value: &Value| parse(&value.text).map_err(|problem| value.error(problem));
    values.get(key).map(parse).transpose()
}

fn number(values: &Values, key: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    let value = required(values, key);
    match value.text.replace('_', "").parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(value.error(format!(
            "`{}` makes no sense here; write a whole number from {min} to {max}",
            value.text
        ))),
    }
}

fn bounded_bytes(values: &Values, key: &str) -> Result<usize, ConfigError> {
    let value = required(values, key);
    let bytes = parse_bytes(&value.text).map_err(|problem| value.error(problem))?;
    match (1..=BYTES_MAX).contains(&bytes) {
        true => Ok(to_usize(bytes)),
        false => Err(value.error(format!(
            "`{}` makes no sense here; write a size from 1 byte to 4GiB",
            value.text
        ))),
    }
}

/// A duration that must not be 0.
fn time_limit(values: &Values, key: &str) -> Result<Duration, ConfigError> {
    duration(values, key, Duration::from_millis(1))
}

fn duration(values: &Values, key: &str, min: Duration) -> Result<Duration, ConfigError> {
    let value = required(values, key);
    let duration = parse_duration(&value.text).map_err(|problem| value.error(problem))?;
    match (min..=DURATION_MAX).contains(&duration) {
        true => Ok(duration),
        false => Err(value.error(format!(
            "`{}` makes no sense here; write a duration from {min:?} to 24h",
            value.text
        ))),
    }
}

fn boolean(values: &Values, key: &str) -> Result<bool, ConfigError> {
    let value = required(values, key);
    match value.text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" | "" => Ok(false),
        _ => Err(value.error(format!(
            "`{}` is neither true nor false; write true, 1, yes, false, 0 or no",
            value.text
        ))),
    }
}

fn choice<T: Copy>(values: &Values, key: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
    let value = required(values, key);
    let chosen = choices.iter().find(|(name, _)| *name == value.text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        value.error(format!(
            "`{}` is no choice; write one of {}",
            value.text,
            names().join(", ")
        ))
    })
}

/// The kinds that `values` name; none for all.
///
/// # Errors
/// A name that is no kind's.
pub fn kinds(values: &Values) -> Result<Vec<Kind>, ConfigError> {
    let parse = |text: &str| items(text).map(str::parse).collect();
    Ok(parsed(values, "kinds", parse)?.unwrap_or_default())
}

/// The items of a list that is separated by commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn directory(fs: &dyn FileSystem, value: &Value) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&value.text);
    match fs.metadata(&path) {
        Ok(metadata) if metadata.is_dir => Ok(path),
        Ok(_) => Err(value.error(format!("{} is a file; name a directory", value.text))),
        Err(error) => Err(value.error(format!(
            "cannot use {}: {error}; name a directory that exists",
            value.text
        ))),
    }
}

fn read_text(fs: &dyn FileSystem, value: &Value) -> Result<String, ConfigError> {
    let path = &value.text;
    let bytes = fs::read(fs, Path::new(path))
        .map_err(|error| value.error(format!("cannot read {path}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| value.error(format!("{path} is not UTF-8 text")))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of a test")]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;
    use crate::settings::{Environment, Flags, setting};
    use std::fs::write;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    /// The configuration of settings by key, as flags, and of an environment.
    fn config(flags: Pairs<'_>, environment: Pairs<'_>) -> Result<Config, ConfigError> {
        let key = |key: &str| setting(key).expect(key).key;
        let flags = Flags {
            file: None,
            values: flags
                .iter()
                .map(|(name, text)| (key(name), (*text).to_owned()))
                .collect(),
        };
        let environment: Environment = environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let values = Values::load(&OsFileSystem, &flags, &environment)?;
        Config::new(&OsFileSystem, &values)
    }

    fn addresses(flags: Pairs<'_>, environment: Pairs<'_>) -> Vec<String> {
        match config(flags, environment).unwrap().broker {
            BrokerConfig::RabbitMq(rabbitmq) => rabbitmq
                .addresses
                .iter()
                .map(|a| format!("{a} {}:{} {}", a.username, a.password, a.vhost))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_state_machine() {
        let config = config(&[], &[]).unwrap();
        assert_eq!(config.extraction, extraction::Options::default());
        assert_eq!(config.record_bytes_max, 64 << 20);
        assert!(matches!(config.broker, BrokerConfig::Spool(path) if path == Path::new("spool")));
        assert!(!config.is_forced);
    }

    #[test]
    fn values_are_read() {
        let config = config(
            &[
                ("kinds", "labels, artists"),
                ("dump-version", "20260801"),
                ("broker", "null:"),
                ("window-bytes", "1MiB"),
                ("state-save-interval", "1_000"),
                ("stop-timeout", "0s"),
                ("confirm-timeout", "1m"),
                ("dead-letters-max", "0"),
                ("topology", "topic"),
                ("message-profile", "raw"),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(config.kinds, [Kind::Labels, Kind::Artists]);
        assert_eq!(config.place.version.unwrap().as_str(), "20260801");
        assert!(matches!(config.broker, BrokerConfig::Null));
        assert_eq!(config.profile, Profile::Raw);
        let options = config.extraction;
        assert_eq!(options.window_bytes, 1 << 20);
        assert_eq!(options.save.interval, 1_000);
        assert_eq!(options.stop_timeout, Duration::ZERO);
        assert_eq!(options.link.confirm_timeout, Duration::from_secs(60));
        assert_eq!(options.dead_letters_max, 0);
        assert!(
            !options.announces_completion,
            "older consumers don't know it"
        );
    }

    #[test]
    fn truth_has_several_spellings() {
        let check = |text, expected| {
            let config = config(&[], &[("FORCE_REPROCESS", text)]).unwrap();
            assert_eq!(config.is_forced, expected, "{text}");
        };
        for text in ["true", "1", "yes", "TRUE"] {
            check(text, true);
        }
        for text in ["false", "0", "no", "False", ""] {
            check(text, false);
        }
    }

    #[test]
    fn a_spool_is_a_directory() {
        let check = |url, expected: &str| match config(&[("broker", url)], &[]).unwrap().broker {
            BrokerConfig::Spool(path) => assert_eq!(path, Path::new(expected)),
            other => panic!("{other:?}"),
        };
        check("file:out", "out");
        check("file:/var/out", "/var/out");
        check("file:///var/out", "/var/out");
        check("file:with, comma", "with, comma");
    }

    #[test]
    fn addresses_of_a_cluster_are_split_and_passwords_are_not() {
        let check = |url, expected: &[&str]| {
            assert_eq!(addresses(&[("broker", url)], &[]), expected, "{url}");
        };
        check("amqp://a", &["a:5672 guest:guest /"]);
        check("amqps://u:p,q@a/v", &["a:5671 u:p,q v"]);
        check(
            "amqp://a,amqp://u:p@b:7",
            &["a:5672 guest:guest /", "b:7 u:p /"],
        );
    }

    #[test]
    fn credentials_fill_what_an_address_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        write(&file, "from file\n").unwrap();
        let file = file.to_str().unwrap();
        let check = |url, environment: Pairs<'_>, expected: &str| {
            let addresses = addresses(&[("broker", url)], environment);
            assert_eq!(addresses, [expected], "{url} {environment:?}");
        };
        let user = ("RABBITMQ_USERNAME", "u");
        let password = ("RABBITMQ_PASSWORD", "p");
        let password_file = ("RABBITMQ_PASSWORD_FILE", file);
        check("amqp://a", &[user], "a:5672 u:guest /");
        check("amqp://a", &[user, password], "a:5672 u:p /");
        check(
            "amqp://a",
            &[user, password, password_file],
            "a:5672 u:from file /",
        );
        check("amqp://x@a", &[user, password], "a:5672 x:p /");
        check("amqp://x:y@a", &[user, password], "a:5672 x:y /");
        let parts = [
            ("RABBITMQ_HOST", "h"),
            ("RABBITMQ_PORT", "7"),
            user,
            password_file,
        ];
        assert_eq!(addresses(&[], &parts), ["h:7 u:from file /"]);
    }

    #[test]
    fn what_an_address_overrides_is_said() {
        let config = config(&[("broker", "amqp://x:y@a")], &[("RABBITMQ_PASSWORD", "p")]);
        assert_eq!(
            config.unwrap().warnings,
            [
                "environment variable RABBITMQ_PASSWORD is ignored: the address from --broker has a \
              password"
            ]
        );
    }

    #[test]
    fn exchanges_and_queues_are_configured() {
        let check = |flags: Pairs<'_>, topology, queues: &[&str]| {
            let flags = [flags, &[("broker", "amqp://a")]].concat();
            let BrokerConfig::RabbitMq(rabbitmq) = config(&flags, &[]).unwrap().broker else {
                panic!("an address of RabbitMQ");
            };
            let names = rabbitmq.queues.iter().map(|queue| queue.name.as_str());
            assert_eq!(names.collect::<Vec<_>>(), queues);
            assert_eq!(rabbitmq.topology, topology);
        };
        check(&[], Topology::default(), &[]);
        check(&[("topology", "topic")], Topology::topic(), &[]);
        let prefix = "mine".to_owned();
        check(
            &[
                ("exchange-prefix", "mine"),
                ("declare-queues", "a-{kind}, b"),
            ],
            Topology::Fanout { prefix },
            &["a-{kind}", "b"],
        );
    }

    #[test]
    fn the_state_machine_waits_for_every_address() {
        let timeout = |url| {
            let config = config(&[("broker", url)], &[]).unwrap();
            config.extraction.link.connect_timeout.as_secs()
        };
        assert_eq!(timeout("amqp://a"), 15);
        assert_eq!(timeout("amqp://a,amqp://b,amqp://c,amqp://d"), 25);
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_says_where_and_what() {
        let check = |key: &str, text: &str, problem: &str| {
            let flags = [("broker", "amqp://h"), (key, text)];
            let error = config(&flags, &[]).unwrap_err();
            assert_eq!(error.origin, format!("--{key}"), "{text}");
            assert!(error.problem.contains(problem), "{problem} in {error}");
        };
        for text in ["0", "-1", "many", "", "1000000001"] {
            check(
                "state-save-interval",
                text,
                "write a whole number from 1 to 1000000000",
            );
        }
        check("window-messages", "0", "from 1 to 1000000");
        check("source-threads", "65", "from 1 to 64");
        check("dead-letters-max", "-1", "from 0 to");
        check("window-bytes", "0", "from 1 byte");
        check("window-bytes", "5GiB", "to 4GiB");
        check("record-bytes-max", "big", "write it like");
        check("confirm-timeout", "0s", "from 1ms to 24h");
        check("stop-timeout", "25h", "from 0ns to 24h");
        check("state-save-max-age", "soon", "write it like");
        check("dump-version", "20261301", "is not a version");
        check("kinds", "labels,tapes", "`tapes` is not a kind");
        check("topology", "star", "write one of fanout, topic");
        check("message-profile", "x", "write one of normalised, raw");
        check(
            "log-level",
            "loud",
            "write one of error, warn, info, debug, trace",
        );
        check("log-format", "xml", "write one of text, json");
        check("progress", "x", "write one of auto, lines, never");
        check("reprocess", "perhaps", "write true, 1, yes, false, 0 or no");
        check("state-dir", "nowhere", "name a directory that exists");
        check("state-dir", "Cargo.toml", "is a file; name a directory");
        check("exchange-prefix", "", "1 to 200 bytes");
        check("declare-queues", &"q".repeat(201), "longer than 200 bytes");
        check("ca-file", "nowhere", "cannot read nowhere");
        check("ca-file", "Cargo.toml", "no certificate in PEM form");
        check("username-file", "nowhere", "cannot read nowhere");
        check("password-file", "nowhere", "cannot read nowhere");
    }

    #[test]
    fn what_is_no_broker_is_an_error_that_keeps_the_password() {
        let check = |url, problem: &str| {
            let error = config(&[("broker", url)], &[]).unwrap_err();
            assert_eq!(error.origin, "--broker");
            assert!(error.problem.contains(problem), "{problem} in {error}");
            assert!(!error.problem.contains("secret"), "{error}");
        };
        check("", "is no broker");
        check("localhost", "is no broker; write file:DIR");
        check("http://u:secret@h", "`http://u:***@h` is no broker");
        check("null:x", "is no broker");
        check("file:", "name a directory");
        check("file://host/path", "file:/// and an absolute path");
        check("file:Cargo.toml", "is a file");
        check("file:a,null:", "only addresses of one RabbitMQ cluster");
        check("amqp://u:secret@h:99999", "the port");
        check("amqp://a,b", "in front of every address");
        check("amqp://u:secret@", "names no host");
    }

    #[test]
    fn errors_of_the_environment_name_the_variable() {
        let check = |name, text, origin: &str| {
            let error = config(&[], &[(name, text)]).unwrap_err();
            assert_eq!(error.origin, origin, "{error}");
        };
        let own = |name| format!("environment variable {name}");
        for (name, text) in [
            ("STATE_SAVE_INTERVAL", "0"),
            ("FORCE_REPROCESS", "perhaps"),
            ("AMQP_CONNECTION", "rabbit"),
            ("RABBITMQ_PORT", "99999"),
            ("RABBITMQ_PASSWORD_FILE", "nowhere"),
            ("DISCOGS_KINDS", "tapes"),
        ] {
            check(name, text, &own(name));
        }
    }

    #[test]
    fn an_address_to_listen_on_may_be_left_to_the_command() {
        let listen = |text: Option<&str>, default| {
            let values = text.map(|text| ("listen", text.to_owned()));
            let flags = Flags {
                file: None,
                values: values.into_iter().collect(),
            };
            let values = Values::load(&OsFileSystem, &flags, &Environment::new()).unwrap();
            ListenConfig::new(&values, default)
        };
        let check = |text, default, expected: Option<&str>| {
            let address = listen(text, default)
                .unwrap()
                .map(|it| it.address.to_string());
            assert_eq!(address.as_deref(), expected, "{text:?}");
        };
        let (on, off) = (ListenConfig::ON, ListenConfig::OFF);
        check(None, off, None);
        check(None, on, Some("127.0.0.1:8000"));
        check(Some("off"), on, None);
        check(Some("localhost:81"), off, Some("127.0.0.1:81"));
        check(Some("0.0.0.0:81"), off, Some("0.0.0.0:81"));
        check(Some("[::1]:81"), off, Some("[::1]:81"));
        for text in [
            "",
            "81",
            "on",
            "127.0.0.1",
            "example.org:81",
            "127.0.0.1:99999",
        ] {
            let error = listen(Some(text), off).unwrap_err();
            assert_eq!(error.origin, "--listen");
            assert!(
                error.problem.contains("write one like 127.0.0.1:8000"),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_are_masked() {
        let check = |key, text, expected| {
            assert_eq!(mask(setting(key).unwrap(), text), expected);
        };
        check("password", "secret", "***");
        check("root", "secret", "secret");
        check("broker", "file:out", "file:out");
        check("broker", "amqp://user@h", "amqp://user@h");
        check(
            "broker",
            "amqp://u:se@cr,et@h/v,amqps://u:secret@h",
            "amqp://u:***@h/v,amqps://u:***@h",
        );
    }
}
