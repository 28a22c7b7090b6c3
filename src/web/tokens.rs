//! Who may ask for what: secrets that people and workers hold, and the right that goes with a claim.
//!
//! Of a secret only its keyed digest is kept, so that nothing here can print it, and a comparison takes the same
//! time wherever two digests differ.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::control::wire::{ClaimName, Ticket};
use crate::core::ids::Timestamp;

/// A shorter secret can be guessed.
const SECRET_CHARS_MIN: usize = 24;
/// Random bytes of a secret made here.
const SECRET_BYTES: usize = 32;

/// What a route needs of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: whoever can reach the address.
    Nothing,
    /// To read.
    Read,
    /// To change what people may change.
    Operate,
    /// To take work and report on it.
    Work,
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Read only.
    Viewer,
    /// Take work, report on it, nothing else.
    Worker,
}

impl Role {
    fn may(self, need: Need) -> bool {
        match (self, need) {
            (_, Need::Nothing)
            | (Self::Admin, _)
            | (Self::Viewer, Need::Read)
            | (Self::Worker, Need::Work) => true,
            (Self::Viewer, Need::Operate | Need::Work) | (Self::Worker, Need::Read | Need::Operate) => false,
        }
    }

    /// The role that is spelled so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "admin" => Some(Self::Admin),
            "viewer" => Some(Self::Viewer),
            "worker" => Some(Self::Worker),
            _ => None,
        }
    }
}

/// A token that is accepted.
struct Known {
    role: Role,
    until: Option<Timestamp>,
    digest: hmac::Tag,
}

/// The tokens that are accepted, and the key that task tokens are made with.
pub struct Tokens {
    known: Vec<Known>,
    /// Of this process alone: digests made with it are worth nothing elsewhere.
    digests: hmac::Key,
    tasks: hmac::Key,
}

/// Why a token is not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Missing,
    Wrong,
    Expired(Timestamp),
    NotAllowed(Role),
}

/// A random secret, in hexadecimal.
///
/// # Panics
/// If the machine has no source of chance.
#[must_use]
pub fn random_secret() -> String {
    let mut bytes = [0_u8; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the machine has a source of chance");
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

impl Tokens {
    /// No token yet; `task_key` is the secret that task tokens are made with: servers that share it accept each
    /// other's.
    #[must_use]
    pub fn new(task_key: &str) -> Self {
        Self {
            known: Vec::new(),
            digests: hmac::Key::new(hmac::HMAC_SHA256, random_secret().as_bytes()),
            tasks: hmac::Key::new(hmac::HMAC_SHA256, task_key.as_bytes()),
        }
    }

    /// Accepts `secret`, until a time if one is said.
    #[must_use]
    pub fn with(mut self, role: Role, secret: &str, until: Option<Timestamp>) -> Self {
        let digest = hmac::sign(&self.digests, secret.as_bytes());
        self.known.push(Known { role, until, digest });
        self
    }

    /// Reads a token file: a secret per line, a role before it (`admin` if none is said) and the day of its end
    /// behind it (never, if none is said); `#` begins a comment.
    ///
    /// # Errors
    /// With the number of the line and what is wrong with it; never with the secret.
    pub fn read(mut self, text: &str) -> Result<Self, String> {
        for (line, number) in text.lines().zip(1..) {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let (role, secret, until) = match words.as_slice() {
                [] => continue,
                [secret] => (Role::Admin, *secret, None),
                [role, secret, rest @ ..] if rest.len() <= 1 => {
                    let role = Role::parse(role)
                        .ok_or_else(|| format!("line {number}: the role is none of admin, viewer, worker"))?;
                    let until = rest.first().map(|day| {
                        Timestamp::parse(day).ok_or_else(|| format!("line {number}: `{day}` is no time"))
                    });
                    (role, *secret, until.transpose()?)
                }
                _ => return Err(format!("line {number}: expected `[role] secret [end]`")),
            };
            if secret.len() < SECRET_CHARS_MIN {
                return Err(format!("line {number}: a secret needs at least {SECRET_CHARS_MIN} characters"));
            }
            self = self.with(role, secret, until);
        }
        if self.known.is_empty() {
            return Err("there is no secret in it".to_owned());
        }
        Ok(self)
    }

    /// Whether who shows `secret` may do what needs `need`.
    pub(super) fn judge(&self, need: Need, secret: Option<&str>, now: Timestamp) -> Result<(), Denied> {
        if need == Need::Nothing {
            return Ok(());
        }
        let secret = secret.ok_or(Denied::Missing)?;
        // All are compared, so that the time taken does not tell which one came close.
        let mut found = None;
        for known in &self.known {
            if hmac::verify(&self.digests, secret.as_bytes(), known.digest.as_ref()).is_ok() {
                found = Some(known);
            }
        }
        let known = found.ok_or(Denied::Wrong)?;
        if let Some(until) = known.until.filter(|until| *until <= now) {
            return Err(Denied::Expired(until));
        }
        if known.role.may(need) { Ok(()) } else { Err(Denied::NotAllowed(known.role)) }
    }

    /// The right to act on a claim.
    pub(super) fn ticket(&self, claim: ClaimName, task: usize) -> Ticket {
        let token = hex(hmac::sign(&self.tasks, signed(&claim, task).as_bytes()).as_ref());
        Ticket { claim, task, token }
    }

    /// Whether the right was given by this server, or one that shares its key.
    pub(super) fn is_genuine(&self, ticket: &Ticket) -> bool {
        let signed = signed(&ticket.claim, ticket.task);
        unhex(&ticket.token).is_some_and(|tag| hmac::verify(&self.tasks, signed.as_bytes(), &tag).is_ok())
    }
}

/// Ids hold no `/`, so no two claims have one text.
fn signed(claim: &ClaimName, task: usize) -> String {
    let ClaimName { dag_id, run_id, task_id, map_index, fence } = claim;
    format!("{dag_id}/{run_id}/{task_id}/{task}/{map_index}/{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn tokens(text: &str) -> Tokens {
        Tokens::new("key").read(text).unwrap()
    }

    #[test]
    fn a_token_is_as_good_as_its_role_and_its_time() {
        let now = Timestamp::parse("2026-06-01").unwrap();
        for (line, need, expected) in [
            (SECRET.to_owned(), Need::Operate, Ok(())),
            (format!("worker {SECRET}"), Need::Work, Ok(())),
            (format!("worker {SECRET}"), Need::Read, Err(Denied::NotAllowed(Role::Worker))),
            (format!("viewer {SECRET}"), Need::Read, Ok(())),
            (format!("viewer {SECRET} # of Ann"), Need::Operate, Err(Denied::NotAllowed(Role::Viewer))),
            (format!("admin {SECRET} 2026-06-01"), Need::Read, Err(Denied::Expired(now))),
            (format!("admin {SECRET} 2026-06-02"), Need::Read, Ok(())),
        ] {
            assert_eq!(tokens(&line).judge(need, Some(SECRET), now), expected, "{line} {need:?}");
        }
        let known = tokens(SECRET);
        assert_eq!(known.judge(Need::Read, None, now), Err(Denied::Missing));
        assert_eq!(known.judge(Need::Read, Some(&SECRET[1..]), now), Err(Denied::Wrong));
        assert_eq!(known.judge(Need::Nothing, None, now), Ok(()));
    }

    #[test]
    fn a_bad_token_file_names_the_line_and_never_the_secret() {
        let bad = format!("root {SECRET}");
        for (text, expected) in [
            ("# nothing\n", "no secret"),
            ("short", "line 1: a secret needs"),
            (bad.as_str(), "line 1: the role"),
            ("\nadmin aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa soon", "line 2: `soon` is no time"),
        ] {
            let Err(error) = Tokens::new("key").read(text) else { panic!("{text} was read") };
            assert!(error.contains(expected) && !error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn a_task_token_is_good_for_one_claim_alone() {
        let claim = ClaimName {
            dag_id: "d".into(),
            run_id: "r".into(),
            task_id: "t".into(),
            map_index: -1,
            fence: 3,
        };
        let (ours, theirs) = (Tokens::new("key"), Tokens::new("other"));
        let ticket = ours.ticket(claim, 0);
        assert!(Tokens::new("key").is_genuine(&ticket), "servers that share the key accept each other's");
        assert!(!theirs.is_genuine(&ticket));
        for change in [
            |t: &mut Ticket| t.claim.fence = 4,
            |t: &mut Ticket| t.claim.task_id = "u".into(),
            |t: &mut Ticket| t.claim.map_index = 0,
            |t: &mut Ticket| t.task = 1,
            |t: &mut Ticket| t.token.clear(),
            |t: &mut Ticket| t.token = "zz".into(),
        ] {
            let mut other = ticket.clone();
            change(&mut other);
            assert!(!ours.is_genuine(&other), "{other:?}");
        }
    }
}
