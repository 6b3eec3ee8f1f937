//! A strict reader of Prometheus' text format, version 0.0.4: what it takes, Prometheus takes.

use std::collections::BTreeMap;

/// The samples by name with labels, as `name{label="value"}`.
pub(crate) type Samples = BTreeMap<String, f64>;

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// The samples of a text.
pub(crate) fn parse(text: &str) -> Result<Samples, String> {
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut forms = BTreeMap::new();
    let mut present = (String::new(), String::new());
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = split(help)?.0.to_owned();
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, form) = split(family)?;
            let is_known = ["counter", "gauge", "histogram"].contains(&form);
            let is_new = forms.insert(name.to_owned(), form.to_owned()).is_none();
            if !is_known || !is_new || helped != name || !is_name(name) {
                return Err(format!("no family: {line}"));
            }
            present = (name.to_owned(), form.to_owned());
        } else {
            let (sample, value) = line.rsplit_once(' ').ok_or(format!("no sample: {line}"))?;
            let value = value.parse().map_err(|_| format!("no number: {line}"))?;
            let (name, _) = labels(sample)?;
            let base = base(name, &present.1);
            if base != present.0 {
                return Err(format!("not in the family {}: {line}", present.0));
            }
            let samples = families.entry(base.to_owned()).or_default();
            samples.push((sample.to_owned(), value));
        }
    }
    for (name, samples) in &families {
        check(name, &forms[name], samples)?;
    }
    let all: Vec<_> = families.into_values().flatten().collect();
    let count = all.len();
    let samples: Samples = all.into_iter().collect();
    match samples.len() == count && count > 0 {
        true => Ok(samples),
        false => Err("a sample is there twice, or nothing is".to_owned()),
    }
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let parts = text.split_once(' ');
    parts
        .filter(|(_, rest)| !rest.is_empty())
        .ok_or(format!("nothing behind {text}"))
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.starts_with(|c: char| !c.is_ascii_digit()) && !name.is_empty() && name.chars().all(is_part)
}

/// The name of the family that a sample of this form belongs to.
fn base<'a>(name: &'a str, form: &str) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"];
    let is_histogram = form == "histogram";
    let found = parts.iter().find_map(|part| name.strip_suffix(part));
    found.filter(|_| is_histogram).unwrap_or(name)
}

/// The name and the labels of a sample.
fn labels(sample: &str) -> Result<(&str, Labels<'_>), String> {
    let wrong = || format!("no name and labels: {sample}");
    let (name, inside) = match sample.split_once('{') {
        None => (sample, None),
        Some((name, rest)) => (name, Some(rest.strip_suffix('}').ok_or_else(wrong)?)),
    };
    let is_label = |pair: &str| {
        let parts = pair.split_once('=').and_then(|(label, value)| {
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            Some((label, value))
        });
        parts.is_some_and(|(label, value)| is_name(label) && !value.contains(['"', '\\']))
    };
    let pairs = inside.into_iter().flat_map(|inside| inside.split(','));
    if !is_name(name) || !pairs.clone().all(is_label) {
        return Err(wrong());
    }
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(label, value)| (label, value.trim_matches('"')));
    Ok((name, pairs.collect()))
}

/// What has to hold of a family.
fn check(name: &str, form: &str, samples: &[(String, f64)]) -> Result<(), String> {
    let is_counter = form == "counter";
    if is_counter != name.ends_with("_total") {
        return Err(format!("{name} is called like another form than {form}"));
    }
    if form != "gauge"
        && samples
            .iter()
            .any(|(_, value)| value.is_nan() || *value < 0.0)
    {
        return Err(format!("{name} is below 0"));
    }
    if form != "histogram" {
        return Ok(());
    }
    let is_bucket = |(sample, _): &&(String, f64)| sample.contains("_bucket{");
    let buckets: Vec<_> = samples.iter().filter(is_bucket).collect();
    let bound = |sample: &str| labels(sample).unwrap().1[0].1.parse::<f64>().unwrap();
    let rises = buckets
        .windows(2)
        .all(|pair| pair[0].1 <= pair[1].1 && bound(&pair[0].0) < bound(&pair[1].0));
    let value = |part: &str| {
        let name = format!("{name}_{part}");
        samples
            .iter()
            .find(|(sample, _)| *sample == name)
            .map(|(_, value)| *value)
    };
    let last = buckets
        .last()
        .map(|(sample, count)| (bound(sample), *count));
    let count = value("count").ok_or(format!("{name} has no count"))?;
    value("sum").ok_or(format!("{name} has no sum"))?;
    match rises && last == Some((f64::INFINITY, count)) {
        true => Ok(()),
        false => Err(format!("{name} is no histogram")),
    }
}

#[test]
fn what_is_no_such_text_is_found() {
    let check = |text: &str, is_good: bool| {
        let text = format!("# HELP b_total B.\n# TYPE b_total counter\nb_total 3\n{text}");
        let parsed = parse(&text);
        assert_eq!(parsed.is_ok(), is_good, "{text}{parsed:?}");
    };
    let family = |form: &str, samples: &str| format!("# HELP a A.\n# TYPE a {form}\n{samples}");
    let gauge = |samples: &str| family("gauge", samples);
    check(&gauge("a 1\n"), true);
    check(&gauge("a{k=\"v\"} 1\na{k=\"w\"} -2.5\n"), true);
    check(&gauge("a 1\na 2\n"), false);
    check(&gauge("b 1\n"), false);
    check(&gauge("a one\n"), false);
    check(&gauge("a{k=v} 1\n"), false);
    check(&gauge("a{k=\"v\" 1\n"), false);
    check(&gauge("1a 1\n"), false);
    check(&family("counter", "a 1\n"), false);
    check(&family("sum", "a 1\n"), false);
    check("# TYPE a gauge\na 1\n", false);
    check("b_total 4\n", false);
    let histogram = |buckets: &str| family("histogram", &format!("{buckets}a_sum 1\na_count 2\n"));
    check(
        &histogram("a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n"),
        true,
    );
    check(
        &histogram("a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 3\n"),
        false,
    );
    check(
        &histogram("a_bucket{le=\"1\"} 3\na_bucket{le=\"+Inf\"} 2\n"),
        false,
    );
    check(
        &histogram("a_bucket{le=\"2\"} 1\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n"),
        false,
    );
    check(&histogram("a_bucket{le=\"1\"} 1\n"), false);
}
