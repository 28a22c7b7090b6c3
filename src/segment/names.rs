//! Names and identities of segments.
//!
//! Owns the words that centres are turned into and the ids that are a function of model name and centre.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::rfm::grid;

/// A segment this near to the population says nothing of a feature.
const TYPICAL: f64 = 0.5;
/// Beyond this a segment is very high or very low.
const VERY: f64 = 1.0;

/// How far a segment's mean of one feature lies from the population's.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect<'a> {
    /// The feature.
    pub feature: &'a str,
    /// (segment mean - population mean) / population standard deviation.
    pub z: f64,
    /// Word for far below; default `Low <feature>`.
    pub low_word: Option<&'a str>,
    /// Word for far above; default `High <feature>`.
    pub high_word: Option<&'a str>,
}

/// What a segment is named from.
#[derive(Debug, Clone, PartialEq)]
pub struct Portrait<'a> {
    /// A name given by the author; it wins.
    pub given: Option<&'a str>,
    /// Median recency and frequency scores, when the RFM parts are declared.
    pub rfm: Option<(u8, u8)>,
    /// One per numeric feature; with `rfm`, of the other features only.
    pub effects: Vec<Effect<'a>>,
}

/// `seg_` and 26 characters from the model's name and the centre's bits.
pub fn segment_id(model: &str, columns: &[String], centre: &[f64]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut hash = Sha256::new();
    hash.update(model.as_bytes());
    for (column, value) in columns.iter().zip(centre) {
        hash.update([0]);
        hash.update(column.as_bytes());
        hash.update([0]);
        // Adding 0 makes one bit pattern of the two zeros.
        hash.update((value + 0.0).to_bits().to_be_bytes());
    }
    let digest = hash.finalize();
    let bit = |place: usize| usize::from(digest[place / 8] >> (7 - place % 8) & 1);
    let digit = |number: usize| (0..5).fold(0, |digit, place| digit << 1 | bit(number * 5 + place));
    let characters = (0..26).map(|number| char::from(DIGITS[digit(number)]));
    "seg_".chars().chain(characters).collect()
}

/// One name per segment, in the order given, all different unless the author gave two the same.
pub fn names(portraits: &[Portrait<'_>]) -> Vec<String> {
    let mut taken: BTreeSet<String> =
        portraits.iter().filter_map(|portrait| portrait.given.map(str::to_owned)).collect();
    let mut free = |wanted: Vec<String>| {
        let last = wanted.last().cloned().expect("every portrait has a name");
        let numbered = (2_usize..).map(|number| format!("{last} {number}"));
        let name = wanted.into_iter().chain(numbered).find(|name| !taken.contains(name));
        let name = name.expect("there is always a next number");
        taken.insert(name.clone());
        name
    };
    portraits
        .iter()
        .map(|portrait| portrait.given.map_or_else(|| free(wanted(portrait)), str::to_owned))
        .collect()
}

/// The names a segment would take, best first.
fn wanted(portrait: &Portrait<'_>) -> Vec<String> {
    let mut effects: Vec<&Effect<'_>> =
        portrait.effects.iter().filter(|effect| effect.z.abs() >= TYPICAL).collect();
    effects.sort_by(|left, right| right.z.abs().total_cmp(&left.z.abs()));
    let phrases: Vec<String> = effects.into_iter().map(phrase).collect();
    if let Some((recency, frequency)) = portrait.rfm {
        let cell = grid(recency, frequency).to_owned();
        let suffixed = phrases.first().map(|phrase| format!("{cell}, {}", lowered(phrase)));
        return [cell].into_iter().chain(suffixed).collect();
    }
    match phrases.as_slice() {
        [] => vec!["Typical".to_owned()],
        [only] => vec![only.clone()],
        [first, second, rest @ ..] => {
            let two = format!("{first}, {}", lowered(second));
            let three = rest.first().map(|third| format!("{two}, {}", lowered(third)));
            [two].into_iter().chain(three).collect()
        }
    }
}

fn phrase(effect: &Effect<'_>) -> String {
    let (given, default) = if effect.z < 0.0 { (effect.low_word, "Low") } else { (effect.high_word, "High") };
    let word = given.map_or_else(|| format!("{default} {}", effect.feature.replace('_', " ")), str::to_owned);
    if effect.z.abs() > VERY { format!("Very {}", lowered(&word)) } else { word }
}

/// The phrase with its first letter small, as it stands inside a name.
fn lowered(phrase: &str) -> String {
    let mut letters = phrase.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(feature: &str, z: f64) -> Effect<'_> {
        Effect { feature, z, low_word: None, high_word: None }
    }

    #[test]
    fn the_two_strongest_features_name_a_segment() {
        let effects = vec![effect("orders", 0.6), effect("spend", -1.4), effect("age", 0.1)];
        let portrait = Portrait { given: None, rfm: None, effects };
        let dull = Portrait { given: None, rfm: None, effects: vec![effect("age", 0.4)] };
        assert_eq!(names(&[portrait, dull]), ["Very low spend, high orders", "Typical"]);
    }

    #[test]
    fn names_that_collide_get_a_suffix_and_then_a_number() {
        let champion = |z| Portrait { given: None, rfm: Some((5, 5)), effects: vec![effect("open_rate", z)] };
        let found = names(&[champion(0.7), champion(-0.8), champion(-0.8)]);
        assert_eq!(found, ["Champions", "Champions, low open rate", "Champions, low open rate 2"]);
    }

    #[test]
    fn a_given_name_wins_and_is_not_given_twice() {
        let plain = Portrait { given: None, rfm: Some((5, 5)), effects: vec![] };
        let given = Portrait { given: Some("Champions"), ..plain.clone() };
        assert_eq!(names(&[plain, given]), ["Champions 2", "Champions"]);
    }

    #[test]
    fn an_id_depends_on_model_and_centre_alone() {
        let columns = ["a".to_owned(), "b".to_owned()];
        let id = segment_id("customers", &columns, &[0.0, 1.0]);
        assert_eq!(id.len(), 30);
        assert_eq!(id, segment_id("customers", &columns, &[-0.0, 1.0]));
        assert_ne!(id, segment_id("customers", &columns, &[0.0, 1.5]));
        assert_ne!(id, segment_id("visitors", &columns, &[0.0, 1.0]));
    }
}
