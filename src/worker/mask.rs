//! Keeps secrets out of logs and errors: whatever is known to be one is shown as `***`.

use std::sync::RwLock;

/// A shorter value would be found everywhere.
const SECRET_BYTES_MIN: usize = 6;
const SHOWN: &str = "***";

/// Words in the names of variables and settings that hold secrets.
const WORDS: &[&str] = &[
    "PASSWORD",
    "PASSWD",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "API_KEY",
    "PRIVATE_KEY",
    "ACCESS_KEY",
    "CREDENTIAL",
];

/// Whether a variable or a setting of this name holds a secret.
#[must_use]
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// What is hidden. The longest comes first, so that a secret within another does not leave a rest of it.
#[derive(Default)]
pub(super) struct Mask(RwLock<Vec<String>>);

impl Mask {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mask = Self::default();
        secrets.for_each(|secret| mask.add(secret));
        mask
    }

    /// Hides `secret` from now on, each of its lines, and as it stands in addresses and JSON; if it was taken from an
    /// address, also as it stands elsewhere.
    pub(super) fn add(&self, secret: &str) {
        let mut known = self.0.write().expect("nothing panics while the list is held");
        let json = serde_json::Value::from(secret).to_string();
        let (address, plain) = (in_an_address(secret), from_an_address(secret));
        let forms = secret.lines().chain([json.trim_matches('"'), address.as_str()]).chain(plain.as_deref());
        for form in forms.filter(|form| form.len() >= SECRET_BYTES_MIN) {
            if !known.iter().any(|other| other == form) {
                known.push(form.to_owned());
            }
        }
        known.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// The text without what is hidden.
    pub(super) fn hide<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        let known = self.0.read().expect("nothing panics while the list is held");
        let mut shown = std::borrow::Cow::Borrowed(text);
        for secret in known.iter() {
            if shown.contains(secret.as_str()) {
                shown = shown.replace(secret.as_str(), SHOWN).into();
            }
        }
        shown
    }
}

fn in_an_address(secret: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    secret.bytes().map(byte).collect()
}

/// The text that `%41` and the like stand for; `None` if it has none of them.
fn from_an_address(secret: &str) -> Option<String> {
    let mut parts = secret.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    let mut any = false;
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
        any = true;
    }
    if any { String::from_utf8(bytes).ok() } else { None }
}

impl Clone for Mask {
    fn clone(&self) -> Self {
        Self(RwLock::new(self.0.read().expect("nothing panics while the list is held").clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_form_it_takes() {
        let mask = Mask::new(["hunter2&co", "hunter2", "short", "line one\nline two"].into_iter());
        for (text, shown) in [
            ("password hunter2&co!", "password ***!"),
            ("postgres://u:hunter2%26co@host", "postgres://u:***@host"),
            ("hunter2", "***"),
            ("too short to hide", "too short to hide"),
            ("only line two of it", "only *** of it"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(mask.hide(text), shown);
        }
        let mask = Mask::new(["p%40ss%2Fword"].into_iter());
        assert_eq!(mask.hide("p%40ss%2Fword is p@ss/word"), "*** is ***");
        mask.add("quo\"ted");
        assert_eq!(mask.hide(r#"{"x": "quo\"ted"}"#), r#"{"x": "***"}"#);
    }

    #[test]
    fn names_tell_what_is_secret() {
        for name in ["PGPASSWORD", "aws_secret_access_key", "GITHUB_TOKEN", "api_key", "MY_API_KEY"] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in ["PATH", "HOME", "KEYBOARD", "USER"] {
            assert!(!names_a_secret(name), "{name}");
        }
    }
}
