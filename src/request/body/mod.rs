//! Reads the model and an estimate of the tokens from a JSON request body.
//!
//! The functions accept any bytes. They make one pass without recursion or copies, so the time grows linearly with the
//! length.

mod data;
mod json;
mod text;

use json::{Part, Parts};

use super::Cost;
use crate::vocabulary::Pricing;

/// The maximum size of a body that is read: 4 MiB.
pub(crate) const BODY_MAX: u64 = 4 << 20;
/// The estimated tokens of an image, an audio clip or a file, whatever its size. It is OpenAI's cost of an image at
/// high detail.
const PART_TOKENS: f64 = 1_000.0;
/// The maximum number of tokens that a request is estimated at.
const TOKENS_MAX: f64 = 1e9;
/// The maximum nesting depth of a body that is read: 128, as many servers have it.
const DEPTH_MAX: usize = 128;
/// The maximum number of digits that are read of a number. A longer number exceeds every limit.
const DIGITS_MAX: usize = 40;

/// Members with the text of embeddings and completions, which may be arrays of token ids.
const IDS: &[&str] = &["input", "prompt"];
/// Members of the outermost object that hold the settings of a call: Gemini's, Bedrock's, and those of Hugging Face and
/// DashScope.
const SETTINGS: &[&str] = &["generationConfig", "generation_config", "inferenceConfig", "parameters"];
/// Members with the maximum number of output tokens.
const OUTPUT: &[&str] =
    &["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "max_new_tokens"];
/// Members with the number of answers requested.
const ANSWERS: &[&str] = &["n", "best_of", "candidateCount", "candidate_count"];

/// The content of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Estimate<'a> {
    /// The last string named `model` in the outermost object, as sent.
    pub(crate) model: Option<&'a [u8]>,
    /// The tokens of the texts, images and files, and the output. `None` if the body is not a complete JSON object or
    /// is nested too deeply.
    tokens: Option<Tokens>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Tokens {
    input: f64,
    /// The maximum number of output tokens.
    output: f64,
}

impl<'a> Estimate<'a> {
    /// Reads a whole body.
    pub(crate) fn of(body: &'a [u8]) -> Self {
        let mut estimate = Self::default();
        if body.trim_ascii_start().first() != Some(&b'{') {
            return estimate;
        }
        let mut within = Within { depth: 0, places: [Location::Other; DEPTH_MAX] };
        let mut name: &[u8] = b"";
        let (mut input, mut output, mut answers) = (0.0, 0.0, 1.0);
        for part in Parts(body) {
            match part {
                Part::Name(string, text) => {
                    name = string;
                    // The names of members in messages and tools are tokens. Those of the outermost object belong to
                    // the API.
                    if within.depth > 1 {
                        input += text.tokens;
                    }
                    continue;
                }
                Part::Text(string, _) if within.is(Location::Top) && name == b"model" => estimate.model = Some(string),
                Part::Text(string, text) => {
                    let is_part = data::is_part(string, name, within.is(Location::Media));
                    input += if is_part { PART_TOKENS } else { text.tokens };
                }
                Part::Number(digits) if within.is(Location::Ids) => {
                    input += f64::from(u8::from(digits.iter().all(u8::is_ascii_digit)));
                }
                Part::Number(digits) if within.is(Location::Top) || within.is(Location::Settings) => {
                    if is_one_of(name, OUTPUT) {
                        output = f64::max(output, number(digits));
                    } else if is_one_of(name, ANSWERS) {
                        answers = f64::max(answers, number(digits));
                    }
                }
                Part::Number(_) => {}
                Part::Open { .. } if within.depth == DEPTH_MAX => break,
                Part::Open { array } => within.open(name, array),
                Part::Close => {
                    within.close();
                    if within.depth == 0 {
                        let output = f64::min(output * answers, TOKENS_MAX);
                        estimate.tokens = Some(Tokens { input, output });
                        break;
                    }
                }
            }
            name = b"";
        }
        estimate
    }

    /// Returns the cost of the call as its provider counts it.
    pub(crate) fn cost(&self, pricing: Pricing) -> Cost {
        let Some(Tokens { input, output }) = self.tokens else { return Cost::unknown() };
        let tokens = match pricing {
            Pricing::Larger => input.max(output),
            Pricing::Sum => input + output,
        };
        Cost::tokens(tokens).with_input(input).with_output(output)
    }
}

/// The role of an object or an array.
#[derive(Clone, Copy, PartialEq)]
enum Location {
    /// The outermost object.
    Top,
    /// An array of token ids, or an array of such arrays.
    Ids,
    Settings,
    /// An image, an audio clip or a file.
    Media,
    Other,
}

/// The objects and arrays that are open.
struct Within {
    depth: usize,
    places: [Location; DEPTH_MAX],
}

impl Within {
    fn innermost(&self) -> Option<Location> {
        self.places.get(self.depth.checked_sub(1)?).copied()
    }

    fn is(&self, place: Location) -> bool {
        self.innermost() == Some(place)
    }

    fn open(&mut self, name: &[u8], array: bool) {
        let place = match self.innermost() {
            None => Location::Top,
            Some(Location::Top) if array && is_one_of(name, IDS) => Location::Ids,
            Some(Location::Ids) if array => Location::Ids,
            Some(Location::Top) if !array && is_one_of(name, SETTINGS) => Location::Settings,
            _ if !array && data::holds_media(name) => Location::Media,
            _ => Location::Other,
        };
        self.places[self.depth] = place;
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|one| one.as_bytes() == name)
}

/// Parses a number of tokens or answers. A negative number becomes zero, and the maximum is [`TOKENS_MAX`].
fn number(digits: &[u8]) -> f64 {
    let number =
        std::str::from_utf8(&digits[..digits.len().min(DIGITS_MAX)]).ok().and_then(|digits| digits.parse::<f64>().ok());
    number.map_or(0.0, |number| number.clamp(0.0, TOKENS_MAX))
}

#[cfg(test)]
mod tests;
