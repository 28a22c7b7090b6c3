//! The channel `email`: one mail per message over SMTP, with TLS from the first byte, by STARTTLS, or without.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls as Encryption, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::settings::{EmailSettings, Receivers, RouteProblem, Tls, problem, secret};
use super::{Channel, Lines, Message, SEND_TIMEOUT, SendError, Sending, subject};
use crate::core::alert::ProblemState;
use crate::core::ids::Timestamp;
use crate::secret::Secret;

/// The port of mail submission with STARTTLS, and with TLS from the first byte.
const PORT_SMTP: u16 = 587;
const PORT_SMTPS: u16 = 465;

/// Sends mail through one server.
pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    server: String,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// The server's address, taken apart.
struct Server {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<Secret<String>>,
    /// TLS from the first byte.
    wrapped: bool,
}

/// What is wrong with the keys, as far as they say.
pub(super) fn check(settings: &EmailSettings) -> Vec<RouteProblem> {
    let mut problems = Vec::new();
    match server(settings) {
        Err(found) => problems.push(found),
        Ok(server) => {
            let given =
                [settings.password.is_some(), settings.password_env.is_some(), server.password.is_some()];
            let passwords = given.iter().filter(|given| **given).count();
            if passwords > 1 {
                problems.push(problem("the password is given twice", None));
            }
            if passwords > 0 && server.user.is_none() {
                let hint = "smtp://USER@host".to_owned();
                problems.push(problem("there is a password, but `smtp` names no user", hint));
            }
            if server.wrapped && settings.tls.is_some() {
                let hint = "`tls` is for `smtp://`".to_owned();
                problems.push(problem("`smtps://` has TLS from the first byte", hint));
            }
        }
    }
    problems.extend(sender(settings).err());
    match receivers(settings) {
        [] => problems.push(problem("`to` names nobody", "to = \"name@example.com\"".to_owned())),
        all => problems.extend(all.iter().filter_map(|to| mailbox("to", to).err())),
    }
    problems
}

fn sender(settings: &EmailSettings) -> Result<Mailbox, RouteProblem> {
    match &settings.from {
        Some(from) => mailbox("from", from),
        None => Err(problem("the key `from` is missing", "from = \"mainspring@example.com\"".to_owned())),
    }
}

fn receivers(settings: &EmailSettings) -> &[String] {
    match &settings.to {
        None => &[],
        Some(Receivers::One(one)) => std::slice::from_ref(one),
        Some(Receivers::Many(all)) => all,
    }
}

fn mailbox(key: &str, text: &str) -> Result<Mailbox, RouteProblem> {
    text.parse().map_err(|_reason| {
        problem(format!("`{text}` in `{key}` is not a mail address"), "Name <name@example.com>".to_owned())
    })
}

fn server(settings: &EmailSettings) -> Result<Server, RouteProblem> {
    let hint = || "smtp://user@mail.example:587, or smtps://user@mail.example".to_owned();
    let wrong = || problem("`smtp` is not the address of a mail server", hint());
    let Some(smtp) = &settings.smtp else { return Err(problem("the key `smtp` is missing", hint())) };
    let url = reqwest::Url::parse(smtp.expose().trim()).map_err(|_secret| wrong())?;
    let wrapped = match url.scheme() {
        "smtp" => false,
        "smtps" => true,
        _ => return Err(wrong()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong());
    }
    Ok(Server {
        host,
        port: url.port().unwrap_or(if wrapped { PORT_SMTPS } else { PORT_SMTP }),
        user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
        password: url.password().map(|password| Secret::new(decoded(password))),
        wrapped,
    })
}

/// `%40` is `@`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Email {
    pub(super) fn open(
        settings: &EmailSettings,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<RouteProblem>> {
        let mut problems = check(settings);
        let password =
            secret("password", settings.password.as_ref(), settings.password_env.as_deref(), environment)
                .unwrap_or_else(|found| {
                    problems.push(found);
                    None
                });
        if !problems.is_empty() {
            return Err(problems);
        }
        let one = |found| vec![found];
        let server = server(settings).map_err(one)?;
        let encryption = encryption(settings, &server).map_err(one)?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .tls(encryption)
            .timeout(Some(SEND_TIMEOUT));
        if let (Some(user), Some(password)) = (&server.user, password.as_ref().or(server.password.as_ref())) {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().clone()));
        }
        let to: Result<Vec<_>, _> = receivers(settings).iter().map(|to| mailbox("to", to)).collect();
        Ok(Self {
            transport: builder.build(),
            server: format!("{}:{}", server.host, server.port),
            from: sender(settings).map_err(one)?,
            to: to.map_err(one)?,
        })
    }

    fn mail(&self, message: &Message, now: Timestamp) -> Result<lettre::Message, SendError> {
        let wrong = |what: &dyn std::fmt::Display| SendError::new(format!("the mail cannot be made: {what}"));
        let name = |id: &str| format!("<{id}@{}>", self.from.email.domain());
        let mut to = Mailboxes::new();
        self.to.iter().for_each(|mailbox| to.push(mailbox.clone()));
        let since_epoch = Duration::from_micros(u64::try_from(now.0).unwrap_or(0));
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .mailbox(lettre::message::header::To::from(to))
            .message_id(Some(name(&message.id)))
            .date(SystemTime::UNIX_EPOCH + since_epoch)
            .subject(format!("[mainspring] {}", subject(&message.problem)))
            .header(ContentType::TEXT_PLAIN);
        if message.problem.state == ProblemState::Resolved {
            builder = builder.in_reply_to(name(&message.first_id)).references(name(&message.first_id));
        }
        let text = Lines::of(&message.problem).in_lines();
        let mut mail = builder
            .body(format!("{text}\n-- \nproblem {}\n", message.problem.key))
            .map_err(|error| wrong(&error))?;
        for (header, value) in [
            ("X-Mainspring-Delivery", message.id.as_str()),
            ("X-Mainspring-Status", message.problem.state.as_str()),
            ("Auto-Submitted", "auto-generated"),
        ] {
            let header = HeaderName::new_from_ascii(header.to_owned()).map_err(|error| wrong(&error))?;
            mail.headers_mut().insert_raw(HeaderValue::new(header, value.to_owned()));
        }
        Ok(mail)
    }

    async fn post(&self, message: &Message, now: Timestamp) -> Result<String, SendError> {
        let mail = self.mail(message, now)?;
        match tokio::time::timeout(SEND_TIMEOUT, self.transport.send(mail)).await {
            Ok(Ok(answer)) => {
                let words = answer.message().collect::<Vec<_>>().join(" ");
                Ok(format!("{} answered {} {words}", self.server, answer.code()))
            }
            Ok(Err(error)) => {
                let mut text = format!("{}: {error}", self.server);
                let mut cause = std::error::Error::source(&error);
                while let Some(next) = cause {
                    let words = next.to_string();
                    if !text.contains(&words) {
                        text.push_str(&format!(": {words}"));
                    }
                    cause = next.source();
                }
                Err(SendError::new(text))
            }
            Err(_elapsed) => {
                Err(SendError::new(format!("{} did not take the mail within {SEND_TIMEOUT:?}", self.server)))
            }
        }
    }
}

/// A password never goes over a line that anybody can read unless the settings say so.
fn encryption(settings: &EmailSettings, server: &Server) -> Result<Encryption, RouteProblem> {
    let mut parameters = TlsParameters::builder(server.host.clone());
    if let Some(path) = &settings.ca_file {
        let unreadable = |why: &dyn std::fmt::Display| {
            problem(format!("`ca_file` {} cannot be read: {why}", path.display()), None)
        };
        let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| unreadable(&error))?;
        parameters = parameters.add_root_certificate(certificate);
    }
    let parameters =
        parameters.build_rustls().map_err(|error| problem(format!("TLS cannot be set up: {error}"), None))?;
    if server.wrapped {
        return Ok(Encryption::Wrapper(parameters));
    }
    let default = if server.user.is_some() { Tls::Required } else { Tls::Opportunistic };
    Ok(match settings.tls.unwrap_or(default) {
        Tls::Required => Encryption::Required(parameters),
        Tls::Opportunistic => Encryption::Opportunistic(parameters),
        Tls::Off => Encryption::None,
    })
}

impl Channel for Email {
    fn send<'a>(&'a self, message: &'a Message, now: Timestamp) -> Sending<'a> {
        Box::pin(self.post(message, now))
    }

    fn place(&self) -> String {
        let to: Vec<_> = self.to.iter().map(|mailbox| mailbox.email.to_string()).collect();
        format!("{} by {}", to.join(", "), self.server)
    }
}
