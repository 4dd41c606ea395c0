//! Reads the Prometheus text format, from sources that are not to be trusted.
//!
//! Pure. A malformed line harms only itself, nothing panics, and nothing is kept that the caller did not ask for: the
//! caller sees one borrowed sample at a time. Values that no counter or gauge of ours can have (NaN, infinite, negative)
//! are refused here, so that they cannot be mistaken for a measurement further in.

use std::borrow::Cow;

/// Labels that one sample may carry. Engines and gateways use fewer than ten.
const MAX_LABELS: usize = 64;

/// Labels in the order of the text: name and value without escapes.
type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// One line of the text format.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    /// Name of the metric, with its `_bucket`, `_sum` or `_count`.
    pub(crate) name: &'a str,
    /// Labels in the order of the text.
    pub(crate) labels: Labels<'a>,
    /// Finite and not negative.
    pub(crate) value: f64,
}

impl Sample<'_> {
    /// The value of the label `name`.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_ref())
    }
}

/// All well-formed samples of `text` whose name `wanted` accepts.
pub(crate) fn samples(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(move |line| sample(line, &wanted))
}

fn sample<'a>(line: &'a str, wanted: &impl Fn(&str) -> bool) -> Option<Sample<'a>> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) || !wanted(name) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let mut fields = rest.split_ascii_whitespace();
    let value: f64 = fields.next()?.parse().ok()?;
    // A time stamp may follow, and nothing else; an OpenMetrics exemplar begins with `#`.
    match fields.next() {
        None | Some("#") => {}
        Some(stamp) => {
            let _: f64 = stamp.parse().ok()?;
        }
    }
    (value.is_finite() && value >= 0.0).then_some(Sample { name, labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        if labels.len() == MAX_LABELS {
            return None;
        }
        let (key, after) = rest.split_once('=')?;
        let key = key.trim();
        if !is_name(key) {
            return None;
        }
        let quoted = after.trim_start().strip_prefix('"')?;
        let (value, after) = quoted_value(quoted)?;
        labels.push((key, value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// A label's value up to its closing quote, without escapes, and what follows it.
fn quoted_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut plain: Option<String> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let value = match plain {
                    Some(plain) => Cow::Owned(plain),
                    None => Cow::Borrowed(text.get(..at)?),
                };
                return Some((value, text.get(at + 1..)?));
            }
            '\\' => {
                let (_, escaped) = chars.next()?;
                let plain = plain.get_or_insert_with(|| text.get(..at).unwrap_or_default().to_owned());
                plain.push(if escaped == 'n' { '\n' } else { escaped });
            }
            _ => {
                if let Some(plain) = &mut plain {
                    plain.push(c);
                }
            }
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_' || first == b':')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (String, Vec<(String, String)>, f64);

    fn read(text: &str) -> Vec<Read> {
        samples(text, |_| true)
            .map(|sample| {
                let labels = sample.labels.iter().map(|(k, v)| ((*k).to_owned(), v.to_string()));
                (sample.name.to_owned(), labels.collect(), sample.value)
            })
            .collect()
    }

    #[test]
    fn well_formed_lines_are_read_with_their_labels() {
        let text = "# HELP a b\n# TYPE a counter\na 1\nvllm:x{le=\"0.5\",m=\"a\\\"b\\\\c\\nd\",} 2.5e1 1700000000\n  b{ x = \"é}\" } 3 # {t=\"1\"} 1\n";
        let expected = vec![
            ("a".into(), vec![], 1.0),
            (
                "vllm:x".into(),
                vec![("le".into(), "0.5".into()), ("m".into(), "a\"b\\c\nd".into())],
                25.0,
            ),
            ("b".into(), vec![("x".into(), "é}".into())], 3.0),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_malformed_line_harms_only_itself() {
        let bad = [
            "a",
            "a{",
            "a{x}",
            "a{x=\"1} 2",
            "a{x=\"1\" y=\"2\"} 3",
            "a{x=1} 3",
            "a{=\"1\"} 3",
            "a{x=\"\\",
            "9a 1",
            "a b",
            "a 1 2x",
            "a NaN",
            "a +Inf",
            "a -1",
            "{} 1",
            "é 1",
            "a\u{0}b 1",
            "",
            "}{\"=,",
        ];
        for line in bad {
            assert_eq!(
                read(&format!("{line}\ngood 1\n")),
                vec![("good".into(), vec![], 1.0)],
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_sample_with_absurdly_many_labels_is_refused() {
        let many = "l=\"\",".repeat(MAX_LABELS + 1);
        assert_eq!(read(&format!("a{{{many}}} 1\n")), vec![]);
    }

    #[test]
    fn only_wanted_names_are_read() {
        let names: Vec<_> = samples("a 1\nb 2\n", |name| name == "b").map(|s| s.name).collect();
        assert_eq!(names, ["b"]);
    }
}
