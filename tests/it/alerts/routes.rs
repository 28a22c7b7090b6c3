//! Each channel against a real receiver: what arrives, word by word, and what is said when it does not.

use std::collections::BTreeMap;

use base64::Engine;
use mainspring::alerts::settings::AlertSettings;
use mainspring::alerts::{Message, Routes};
use mainspring::core::alert::{AlertKind, Problem, ProblemKey, ProblemState};
use mainspring::core::ids::{DagId, RunId};
use serde_json::{Value, json};

use super::receivers::{Catcher, MailServer};
use super::story::{MIDNIGHT, after};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(super) fn routes(settings: Value, environment: &[(&str, &str)]) -> Result<Routes, String> {
    let table: BTreeMap<String, Value> = serde_json::from_value(settings).unwrap();
    let words = |problems: Vec<_>| {
        problems
            .iter()
            .map(|p: &mainspring::alerts::settings::RouteProblem| p.to_string())
            .collect::<Vec<_>>()
    };
    let settings = AlertSettings::read(&table).map_err(|problems| words(problems).join("\n"))?;
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Routes::open(&settings, &environment).map_err(|problems| words(problems).join("\n"))
}

fn message(state: ProblemState) -> Message {
    let problem = Problem {
        key: ProblemKey {
            dag_id: DagId::parse("sales").ok(),
            subject: Some("load".into()),
            kind: AlertKind::TaskFailed,
        },
        state,
        opened_at: MIDNIGHT,
        last_seen: after(MIDNIGHT, 3540),
        occurrences: 60,
        resolved_at: (state == ProblemState::Resolved).then(|| after(MIDNIGHT, 3660)),
        last_run_id: RunId::parse("scheduled__2026-01-01T00:59:00Z").ok(),
        summary: "task `load` of `sales` failed after 4 attempts".to_owned(),
        error: "no such table: `größe`\n.".to_owned(),
    };
    let (first, second) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let id = if state == ProblemState::Open { first } else { second };
    Message { id: id.to_owned(), first_id: first.to_owned(), route: "oncall".to_owned(), problem }
}

async fn send(routes: &Routes, state: ProblemState) -> Result<String, String> {
    let channel = routes.find("oncall").unwrap();
    channel.send(&message(state), after(MIDNIGHT, 5000)).await.map_err(|error| error.to_string())
}

/// A route to a catcher, with a secret.
async fn signed_hook() -> (Catcher, Routes) {
    let catcher = Catcher::start(0).await;
    let settings = json!({"routes": {"oncall": {
        "type": "webhook", "url_env": "HOOK", "secret_env": "HOOK_SECRET",
    }}});
    let environment = [("HOOK", catcher.url.as_str()), ("HOOK_SECRET", SECRET)];
    let routes = routes(settings, &environment).unwrap();
    (catcher, routes)
}

#[tokio::test]
async fn a_webhook_carries_a_signature_that_holds() {
    let (mut catcher, routes) = signed_hook().await;
    let answer = send(&routes, ProblemState::Open).await.unwrap();
    let place = catcher.url.trim_end_matches("/hook");
    assert_eq!(answer, format!("{place} answered 202 Accepted: thank you"));
    let call = catcher.next().await;
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.headers["webhook-id"], call.delivery());
    let sent_at = &call.headers["webhook-timestamp"];
    assert_eq!(*sent_at, (after(MIDNIGHT, 5000).0 / 1_000_000).to_string());
    // Another implementation than the one that signed.
    let key = base64::engine::general_purpose::STANDARD.decode(&SECRET[6..]).unwrap();
    let expected = hmac_sha256(&key, format!("{}.{sent_at}.{}", call.delivery(), call.body).as_bytes());
    let expected = base64::engine::general_purpose::STANDARD.encode(expected);
    assert_eq!(call.headers["webhook-signature"], format!("v1,{expected}"));
}

#[tokio::test]
async fn a_webhook_gets_the_body_of_alertmanager() {
    let (mut catcher, routes) = signed_hook().await;
    send(&routes, ProblemState::Open).await.unwrap();
    let call = catcher.next().await;
    let body = serde_json::to_string_pretty(&call.json()).unwrap();
    insta::assert_snapshot!(body, @r##"
    {
      "version": "4",
      "groupKey": "{}:{problem=\"sales/load/task_failed\"}",
      "truncatedAlerts": 0,
      "status": "firing",
      "receiver": "oncall",
      "groupLabels": {
        "alertname": "task_failed",
        "dag_id": "sales",
        "problem": "sales/load/task_failed",
        "severity": "critical",
        "task_id": "load"
      },
      "commonLabels": {
        "alertname": "task_failed",
        "dag_id": "sales",
        "problem": "sales/load/task_failed",
        "severity": "critical",
        "task_id": "load"
      },
      "commonAnnotations": {
        "summary": "task `load` of `sales` failed after 4 attempts",
        "description": "task `load` of `sales` failed after 4 attempts\nsince 2026-01-01 00:00:00 UTC, seen in 60 runs, last in run scheduled__2026-01-01T00:59:00Z\n\nno such table: `größe`\n.\n\nnext:\n  mainspring tasks logs sales load --run-id scheduled__2026-01-01T00:59:00Z\n  mainspring runs why sales scheduled__2026-01-01T00:59:00Z load\n",
        "error": "no such table: `größe`\n.",
        "run_id": "scheduled__2026-01-01T00:59:00Z",
        "occurrences": "60",
        "next": "mainspring tasks logs sales load --run-id scheduled__2026-01-01T00:59:00Z\nmainspring runs why sales scheduled__2026-01-01T00:59:00Z load"
      },
      "externalURL": "",
      "alerts": [
        {
          "status": "firing",
          "labels": {
            "alertname": "task_failed",
            "dag_id": "sales",
            "problem": "sales/load/task_failed",
            "severity": "critical",
            "task_id": "load"
          },
          "annotations": {
            "summary": "task `load` of `sales` failed after 4 attempts",
            "description": "task `load` of `sales` failed after 4 attempts\nsince 2026-01-01 00:00:00 UTC, seen in 60 runs, last in run scheduled__2026-01-01T00:59:00Z\n\nno such table: `größe`\n.\n\nnext:\n  mainspring tasks logs sales load --run-id scheduled__2026-01-01T00:59:00Z\n  mainspring runs why sales scheduled__2026-01-01T00:59:00Z load\n",
            "error": "no such table: `größe`\n.",
            "run_id": "scheduled__2026-01-01T00:59:00Z",
            "occurrences": "60",
            "next": "mainspring tasks logs sales load --run-id scheduled__2026-01-01T00:59:00Z\nmainspring runs why sales scheduled__2026-01-01T00:59:00Z load"
          },
          "startsAt": "2026-01-01T00:00:00Z",
          "endsAt": "0001-01-01T00:00:00Z",
          "generatorURL": "",
          "fingerprint": "bd9a1378b5570bdc"
        }
      ]
    }
    "##);
}

#[tokio::test]
async fn the_end_of_a_problem_is_told_of_the_same_alert() {
    let (mut catcher, routes) = signed_hook().await;
    send(&routes, ProblemState::Open).await.unwrap();
    let opened = catcher.next().await.json();
    send(&routes, ProblemState::Resolved).await.unwrap();
    let resolved = catcher.next().await.json();
    assert_eq!(resolved["status"], "resolved");
    assert_eq!(resolved["alerts"][0]["endsAt"], "2026-01-01T01:01:00Z");
    for same in ["fingerprint", "labels", "startsAt"] {
        assert_eq!(resolved["alerts"][0][same], opened["alerts"][0][same], "{same}");
    }
}

/// As RFC 2104 defines it.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test]
async fn what_a_webhook_answers_is_told_and_its_address_is_not() {
    let catcher = Catcher::start(1).await;
    let url = format!("{}?token=hunter2", catcher.url);
    let settings = |url: &str| json!({"routes": {"oncall": {"type": "webhook", "url": url}}});
    let refused = send(&routes(settings(&url), &[]).unwrap(), ProblemState::Open).await.unwrap_err();
    assert!(refused.ends_with("answered 503 Service Unavailable: come back later"), "{refused}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = routes(settings(&format!("http://{free}/hunter2")), &[]).unwrap();
    let away = send(&nobody, ProblemState::Open).await.unwrap_err();
    assert!(away.starts_with(&format!("http://{free} cannot be reached: ")), "{away}");
    let printed = format!("{refused}{away}{nobody:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn a_mail_says_what_failed_and_its_end_stands_in_the_same_thread() {
    let mut server = MailServer::start(&[]);
    let settings = json!({"routes": {"oncall": {
        "type": "email", "smtp": format!("smtp://127.0.0.1:{}", server.port),
        "from": "Mainspring <mainspring@example.com>", "to": ["a@example.com", "Bea <b@example.com>"],
    }}});
    let routes = routes(settings, &[]).unwrap();
    let answer = send(&routes, ProblemState::Open).await.unwrap();
    assert_eq!(answer, format!("127.0.0.1:{} answered 250 2.0.0 taken", server.port));
    let mail = server.next().await;
    assert_eq!(mail["from"], "mainspring@example.com");
    assert_eq!(mail["to"], json!(["a@example.com", "b@example.com"]));
    let headers = &mail["headers"];
    assert_eq!(headers["x-mainspring-delivery"], "0123456789abcdef0123456789abcdef");
    assert_eq!(headers["message-id"], "<0123456789abcdef0123456789abcdef@example.com>");
    assert_eq!(headers["auto-submitted"], "auto-generated");
    let text = mail["text"].as_str().unwrap().replace("\r\n", "\n").replace("-- \n", "--\n");
    insta::assert_snapshot!(format!("{}\n\n{text}", headers["subject"].as_str().unwrap()), @r##"
    [mainspring] task `load` of `sales` failed after 4 attempts

    task `load` of `sales` failed after 4 attempts
    since 2026-01-01 00:00:00 UTC, seen in 60 runs, last in run scheduled__2026-01-01T00:59:00Z

    no such table: `größe`
    .

    next:
      mainspring tasks logs sales load --run-id scheduled__2026-01-01T00:59:00Z
      mainspring runs why sales scheduled__2026-01-01T00:59:00Z load

    --
    problem sales/load/task_failed
    "##);
    send(&routes, ProblemState::Resolved).await.unwrap();
    let end = server.next().await;
    assert_eq!(end["headers"]["in-reply-to"], headers["message-id"]);
    assert_eq!(end["headers"]["references"], headers["message-id"]);
    assert_ne!(end["headers"]["message-id"], headers["message-id"]);
    let text = end["text"].as_str().unwrap().replace("\r\n", "\n").replace("-- \n", "--\n");
    insta::assert_snapshot!(format!("{}\n\n{text}", end["headers"]["subject"].as_str().unwrap()), @r##"
    [mainspring] resolved: task `load` of `sales` failed after 4 attempts

    resolved: task `load` of `sales` failed after 4 attempts
    it lasted 1 h 1 min, from 2026-01-01 00:00:00 UTC to 2026-01-01 01:01:00 UTC, seen in 60 runs

    no such table: `größe`
    .

    --
    problem sales/load/task_failed
    "##);
}

#[tokio::test]
async fn a_password_goes_over_tls_only_and_the_server_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("server.pem");
    let login = ["--user", "me@example.com", "--password", "hunter2 hunter2"];
    for wrapped in [false, true] {
        let mut args =
            vec![if wrapped { "--smtps" } else { "--starttls" }, "--certificate", ca.to_str().unwrap()];
        args.extend(login);
        let mut server = MailServer::start(&args);
        let scheme = if wrapped { "smtps" } else { "smtp" };
        let port = server.port;
        let route = |ca_file: Option<&str>, user: &str| {
            let mut route = json!({
                "type": "email", "smtp": format!("{scheme}://{user}@127.0.0.1:{port}"),
                "password_env": "MAIL", "from": "m@example.com", "to": "a@example.com",
            });
            if let Some(ca_file) = ca_file {
                route["ca_file"] = ca_file.into();
            }
            routes(json!({"routes": {"oncall": route}}), &[("MAIL", "hunter2 hunter2")]).unwrap()
        };
        let unknown = send(&route(None, "me%40example.com"), ProblemState::Open).await.unwrap_err();
        assert!(unknown.contains("certificate"), "{unknown}");
        let trusted = route(ca.to_str(), "me%40example.com");
        send(&trusted, ProblemState::Open).await.unwrap();
        let mail = server.next().await;
        assert_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("me@example.com")));
        let stranger = send(&route(ca.to_str(), "other"), ProblemState::Open).await.unwrap_err();
        assert!(stranger.contains("535"), "{stranger}");
        assert!(!format!("{unknown}{stranger}{trusted:?}").contains("hunter2"));
        assert!(server.rest().is_empty());
    }
    // A server without TLS is not given a password.
    let mut open = MailServer::start(&login);
    let smtp = format!("smtp://me%40example.com@127.0.0.1:{}", open.port);
    let route = json!({
        "type": "email", "smtp": smtp, "password": "hunter2 hunter2", "from": "m@example.com", "to": "a@example.com",
    });
    let routes = routes(json!({"routes": {"oncall": route}}), &[]).unwrap();
    let refused = send(&routes, ProblemState::Open).await.unwrap_err();
    assert!(refused.contains("STARTTLS"), "{refused}");
    assert!(open.rest().is_empty());
}

#[test]
fn what_the_environment_lacks_is_said_at_once() {
    let settings = json!({"routes": {
        "hook": {"type": "webhook", "url_env": "HOOK", "secret_env": "HOOK_SECRET"},
        "mail": {"type": "email", "smtp": "smtp://u@h", "password_env": "MAIL", "from": "m@x.de", "to": "a@x.de"},
    }});
    let problems = routes(settings, &[("HOOK", "")]).unwrap_err();
    for name in ["HOOK", "HOOK_SECRET", "MAIL"] {
        assert!(problems.contains(&format!("the environment has no `{name}`")), "{problems}");
    }
}

#[test]
fn everything_that_is_wrong_with_the_routes_is_said_at_once_and_no_secret() {
    let problems = routes(
        json!({
            "default": "oncal",
            "colour": "red",
            "routes": {
                "a b": {"type": "log", "level": "high"},
                "mail": {
                    "type": "email", "smtp": "smtp://mail.example", "from": "nobody",
                    "to": ["a@example.com", "b"], "password": "hunter2",
                },
                "none": {"url": "x"},
                "oncall": {"type": "webhook", "url": "ftp://hunter2@files", "secret": "hunter2"},
                "pager": {"type": "webhok"},
            },
        }),
        &[],
    )
    .unwrap_err();
    for expected in [
        "[alerts]: unknown key `colour`\nhint: known keys are `default` and `routes`",
        "[alerts]: `default` names the route `oncal`, which is not declared\nhint: did you mean `oncall`?",
        "alert route `a b`: `a b` is not a valid route name",
        "alert route `a b`: a `log` route has no key `level`",
        "alert route `mail`: there is a password, but `smtp` names no user\nhint: smtp://USER@host",
        "alert route `mail`: `nobody` in `from` is not a mail address",
        "alert route `mail`: `b` in `to` is not a mail address\nhint: Name <name@example.com>",
        "alert route `none`: the key `type` is missing",
        "alert route `oncall`: its address is not an http or https address",
        "alert route `oncall`: its secret cannot be used: a key of 7 bytes can be guessed\nhint: make one: ",
        "alert route `pager`: there is no type `webhok`\nhint: did you mean `webhook`?",
    ] {
        assert!(problems.contains(expected), "{expected} is not in\n{problems}");
    }
    assert_eq!(problems.lines().filter(|line| !line.starts_with("hint: ")).count(), 11, "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}
