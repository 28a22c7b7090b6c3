//! The signature of a webhook, as the Standard Webhooks specification (1.0) says: HMAC-SHA256 over the id, the
//! time of sending and the body, so that a receiver can refuse what is forged, changed or sent again later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What marks a key written in base64.
const PREFIX: &str = "whsec_";
/// Fewer bytes can be guessed.
const KEY_BYTES_MIN: usize = 24;

/// A key that signs.
pub(super) struct SigningKey(hmac::Key);

impl SigningKey {
    /// Reads `whsec_` and base64, or takes the bytes of a plain text; at least 24 bytes.
    ///
    /// # Errors
    /// What is wrong with the text, without showing it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bytes = match text.trim().strip_prefix(PREFIX) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_secret| format!("what follows `{PREFIX}` is not base64"))?,
            None => text.trim().as_bytes().to_vec(),
        };
        if bytes.len() < KEY_BYTES_MIN {
            return Err(format!("a key of {} bytes can be guessed", bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// `v1,` and the signature in base64.
    pub(super) fn sign(&self, id: &str, sent_at_secs: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{sent_at_secs}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused() {
        for text in ["", "hunter2", "whsec_aHVudGVyMg==", "whsec_not base64 at all, as it seems"] {
            let error = SigningKey::parse(text).err().expect("too short");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(SigningKey::parse(&"x".repeat(24)).is_ok());
    }
}
