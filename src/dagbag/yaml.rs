//! YAML text to trees of [`Node`]s that remember where everything stood. What keys mean is not known here.
//!
//! YAML 1.2 with strict scalars: only `true` and `false` are booleans (`no` is a text), a number with a
//! leading zero is a text, no tag does anything. Files, depth and what aliases multiply are limited.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};

use super::problem::{Place, Problem};

/// A larger file is refused: a list of tasks this long is better written with `expand`.
pub(super) const FILE_BYTES_MAX: usize = 16 << 20;
/// Lists and mappings may nest this deep.
pub(super) const DEPTH_MAX: usize = 32;
/// Aliases may add this many nodes to a document.
const ALIASED_NODES_MAX: usize = 100_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Where it is used.
    pub(super) place: Place,
    /// Its bytes in the file; empty for what no file holds.
    pub(super) bytes: Range<usize>,
    /// What it is.
    pub(super) tree: Tree,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// A text, number, boolean or null.
    Scalar {
        /// As it reads after escapes.
        text: String,
        /// Whether it stood in quotes or a block: then it is a text, whatever it looks like.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, every key once.
    Mapping(Vec<(Key, Node)>),
}

/// The key of a mapping's entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    /// The key.
    pub(super) name: String,
    /// Where it stands.
    pub(super) place: Place,
    /// Its bytes in the file.
    pub(super) bytes: Range<usize>,
}

impl Node {
    /// The value below `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    /// The entries of a mapping; none of anything else.
    pub(super) fn entries(&self) -> &[(Key, Node)] {
        match &self.tree {
            Tree::Mapping(entries) => entries,
            Tree::Scalar { .. } | Tree::List(_) => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.tree {
            Tree::List(items) => items,
            Tree::Scalar { .. } | Tree::Mapping(_) => &[],
        }
    }

    /// The text of a scalar that is a text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Scalar { text, quoted } if *quoted || matches!(plain(text), Value::String(_)) => Some(text),
            Tree::Scalar { .. } | Tree::List(_) | Tree::Mapping(_) => None,
        }
    }

    /// The node at the end of `path` (keys, and places of a list from 0), or the last one on the way.
    pub(super) fn along<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> &Node {
        let mut here = self;
        for step in path {
            let next = match &here.tree {
                Tree::Mapping(_) => here.get(step),
                Tree::List(items) => step.parse::<usize>().ok().and_then(|place| items.get(place)),
                Tree::Scalar { .. } => None,
            };
            match next {
                Some(node) => here = node,
                None => break,
            }
        }
        here
    }

    /// As JSON, mappings in the order of the file.
    pub(super) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Scalar { text, quoted: true } => Value::String(text.clone()),
            Tree::Scalar { text, quoted: false } => plain(text),
            Tree::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Tree::Mapping(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, node) in entries {
                    map.insert(key.name.clone(), node.to_json());
                }
                Value::Object(map)
            }
        }
    }

    /// A tree without places, for what was read before.
    pub(super) fn from_json(value: &Value) -> Self {
        let tree = match value {
            Value::String(text) => Tree::Scalar { text: text.clone(), quoted: true },
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                Tree::Scalar { text: value.to_string(), quoted: false }
            }
            Value::Array(items) => Tree::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => Tree::Mapping(
                map.iter()
                    .map(|(name, value)| {
                        let key = Key { name: name.clone(), place: Place::default(), bytes: 0..0 };
                        (key, Self::from_json(value))
                    })
                    .collect(),
            ),
        };
        Self { place: Place::default(), bytes: 0..0, tree }
    }
}

/// What a scalar without quotes is.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let first = digits.as_bytes().first()?;
    let leading_zero = digits.len() > 1 && *first == b'0' && digits.as_bytes()[1].is_ascii_digit();
    if !(first.is_ascii_digit() || *first == b'.') || leading_zero {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let signed = text.strip_prefix('+').unwrap_or(text);
        return signed
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| signed.parse::<u64>().map(Number::from))
            .ok();
    }
    if !digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+')) {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

/// The documents of a file, and what is wrong with it. A document that cannot be read does not hide the next.
pub(super) fn documents(text: &str) -> (Vec<Node>, Vec<Problem>) {
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((event, span))) => {
                if let Err(problem) = reader.take(event, &span) {
                    reader.problems.push(problem);
                    reader.abandon();
                    if !matches!(parser.proceed_next_document(), Ok(true)) {
                        break;
                    }
                }
            }
            Some(Err(error)) => {
                let problem = reader.cannot_read(&error, text);
                reader.problems.push(problem);
                reader.abandon();
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    (reader.documents, reader.problems)
}

/// A list or mapping under construction.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Places of the keys so far.
    seen: HashMap<String, Place>,
    merged: Vec<Node>,
    size: usize,
    height: usize,
}

/// A node that aliases may repeat, its nodes and its height.
struct Anchored {
    node: Node,
    size: usize,
    height: usize,
}

#[derive(Default)]
struct Reader {
    documents: Vec<Node>,
    problems: Vec<Problem>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    aliased: usize,
    root: Option<Node>,
}

fn place_of(span: &Span) -> Place {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) }
}

impl Reader {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser may add events; only these carry values")]
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Problem> {
        let place = place_of(span);
        let bytes = span.byte_range().unwrap_or(0..0);
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
            let what = format!("the tag `{}` means nothing here", tag.original());
            return Err(Problem::at(place, what).hint("DAG files hold plain values only"));
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let node = Node { place, bytes, tree: Tree::Scalar { text: text.into_owned(), quoted } };
                self.add(node, anchor, 1, 0)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(place, bytes, anchor, Tree::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.begin(place, bytes, anchor, Tree::Mapping(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(id) => self.repeat(place, bytes, id),
            Event::DocumentEnd => {
                if let Some(root) = self.root.take() {
                    self.documents.push(root);
                }
                self.anchors.clear();
                self.aliased = 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn abandon(&mut self) {
        self.open.clear();
        self.anchors.clear();
        self.aliased = 0;
        self.root = None;
    }

    fn begin(&mut self, place: Place, bytes: Range<usize>, anchor: usize, tree: Tree) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(place));
        }
        if let Some(Open { node: Node { tree: Tree::Mapping(_), .. }, key: None, .. }) = self.open.last() {
            return Err(Problem::at(place, "a list or mapping is used as a key").expected("a word"));
        }
        let node = Node { place, bytes, tree };
        let (seen, merged) = (HashMap::new(), Vec::new());
        self.open.push(Open { node, anchor, key: None, seen, merged, size: 1, height: 0 });
        Ok(())
    }

    fn end(&mut self, span: &Span) -> Result<(), Problem> {
        let mut done = self.open.pop().expect("every end has its begin");
        done.node.bytes.end = span.byte_range().map_or(done.node.bytes.end, |b| b.end);
        for merged in std::mem::take(&mut done.merged) {
            if let Tree::Mapping(entries) = &mut done.node.tree {
                for (key, node) in merged.entries() {
                    if !done.seen.contains_key(&key.name) {
                        done.seen.insert(key.name.clone(), key.place);
                        entries.push((key.clone(), node.clone()));
                    }
                }
            }
        }
        self.add(done.node, done.anchor, done.size, done.height + 1)
    }

    /// Puts a finished node into what is open.
    fn add(&mut self, node: Node, anchor: usize, size: usize, height: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), size, height });
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.size += size;
        parent.height = parent.height.max(height);
        match &mut parent.node.tree {
            Tree::Scalar { .. } => Ok(()),
            Tree::List(items) => {
                items.push(node);
                Ok(())
            }
            Tree::Mapping(entries) => match parent.key.take() {
                None => {
                    let Tree::Scalar { text, .. } = node.tree else {
                        let what = "a list or mapping is used as a key";
                        return Err(Problem::at(node.place, what).expected("a word"));
                    };
                    parent.key = Some(Key { name: text, place: node.place, bytes: node.bytes });
                    Ok(())
                }
                Some(key) if key.name == "<<" => {
                    match &node.tree {
                        Tree::Mapping(_) => parent.merged.push(node),
                        Tree::List(items) => parent.merged.extend(items.iter().cloned()),
                        Tree::Scalar { .. } => {
                            let what = "`<<` merges something that is no mapping";
                            self.problems
                                .push(Problem::at(node.place, what).expected("an alias such as `*defaults`"));
                        }
                    }
                    Ok(())
                }
                Some(key) => {
                    if let Some(first) = parent.seen.get(&key.name) {
                        let what = format!("the key `{}` is written twice", key.name);
                        let hint =
                            format!("the first one is at line {}, column {}", first.line, first.column);
                        self.problems.push(Problem::at(key.place, what).hint(hint));
                    } else {
                        parent.seen.insert(key.name.clone(), key.place);
                        entries.push((key, node));
                    }
                    Ok(())
                }
            },
        }
    }

    fn repeat(&mut self, place: Place, bytes: Range<usize>, id: usize) -> Result<(), Problem> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(Problem::at(place, "an alias stands inside the value it repeats"));
        };
        let (size, height) = (anchored.size, anchored.height);
        self.aliased += size;
        if self.aliased > ALIASED_NODES_MAX {
            let what = format!("aliases multiply this document beyond {ALIASED_NODES_MAX} values");
            return Err(Problem::at(place, what).hint("write the repeated part once, in `default_args`"));
        }
        if self.open.len() + height > DEPTH_MAX {
            return Err(too_deep(place));
        }
        let mut node = anchored.node.clone();
        node.place = place;
        node.bytes = bytes;
        self.add(node, 0, size, height)
    }

    /// Turns the parser's error into ours; a bracket that was never closed is named where it was opened.
    fn cannot_read(&self, error: &ScanError, text: &str) -> Problem {
        let at = Span::empty(*error.marker());
        if *error.kind() == ErrorKind::UnknownAnchor {
            let what = "the alias here repeats something that has no anchor";
            return Problem::at(place_of(&at), what).hint("an anchor `&name` must stand above its `*name`");
        }
        let flow = self
            .open
            .iter()
            .rev()
            .find(|open| matches!(text.as_bytes().get(open.node.bytes.start), Some(b'[' | b'{')));
        if let Some(open) = flow {
            let bracket = &text[open.node.bytes.start..=open.node.bytes.start];
            let closing = if bracket == "[" { "]" } else { "}" };
            let what = format!("the `{bracket}` opened here is not closed");
            let hint = format!(
                "a `{closing}` or `,` is missing before line {}, column {}",
                at.start.line(),
                at.start.col() + 1
            );
            return Problem::at(open.node.place, what).hint(hint);
        }
        let info = error.info();
        let what = format!("this is not YAML: {}", info.trim_end_matches('.'));
        let tab =
            text.lines().nth(at.start.line().saturating_sub(1)).is_some_and(|line| line.starts_with('\t'));
        let hint = tab.then(|| "indent with spaces, not with tabs".to_owned());
        Problem::at(place_of(&at), what).maybe_hint(hint)
    }
}

fn too_deep(place: Place) -> Problem {
    Problem::at(place, format!("lists and mappings nest deeper than {DEPTH_MAX} here"))
}

#[cfg(test)]
mod tests;
