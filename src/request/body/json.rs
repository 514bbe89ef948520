//! Splits a JSON text into tokens in one pass, without recursion and without copies.
//!
//! It does not validate. Invalid JSON is split as far as possible.

use super::text::{self, Text};

/// A token of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Part<'a> {
    /// An object or an array begins.
    Open { array: bool },
    /// The innermost object or array ends.
    Close,
    /// The name of an object's member, without its quotes. Escapes are kept.
    Name(&'a [u8], Text),
    /// A string without its quotes. Escapes are kept.
    Text(&'a [u8], Text),
    /// A number, as sent.
    Number(&'a [u8]),
}

/// An iterator over the tokens of a JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        loop {
            let (byte, rest) = self.0.split_first()?;
            let before = std::mem::replace(&mut self.0, rest);
            return Some(match byte {
                b'{' => Part::Open { array: false },
                b'[' => Part::Open { array: true },
                b'}' | b']' => Part::Close,
                b'"' => {
                    let text = text::read(rest)?;
                    let (string, rest) = rest.split_at(text.len);
                    self.0 = &rest[1..];
                    let is_name = self.0.trim_ascii_start().first() == Some(&b':');
                    if is_name { Part::Name(string, text) } else { Part::Text(string, text) }
                }
                b'-' | b'0'..=b'9' => {
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let len = before.iter().take_while(|byte| is_part(byte)).count();
                    let (number, rest) = before.split_at(len);
                    self.0 = rest;
                    Part::Number(number)
                }
                _ => continue, // separators, and words such as `true`
            });
        }
    }
}
