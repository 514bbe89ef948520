//! What a request's JSON body says of the call: its model, and an estimate of its tokens.
//!
//! Total functions: any bytes have an outcome. One pass, no recursion, no copies, so that the time is bounded by the length.

mod data;
mod json;
mod text;

use json::{Part, Parts};

use super::Cost;
use crate::vocabulary::Pricing;

/// A body larger than this is not read: 4 MiB.
pub(crate) const BODY_MAX: u64 = 4 << 20;
/// What a part that is no text costs, as an estimate, whatever its bytes: an image at high detail at OpenAI.
const PART_TOKENS: f64 = 1_000.0;
/// No request is taken for larger than this, whatever it says.
const TOKENS_MAX: f64 = 1e9;
/// A body whose objects and arrays are deeper within each other is not read: 128, as servers have it.
const DEPTH_MAX: usize = 128;
/// No number is read beyond so many digits; it is too large long before.
const DIGITS_MAX: usize = 40;

/// Texts of embeddings and completions, which may be sent as numbers of tokens.
const IDS: &[&str] = &["input", "prompt"];
/// Objects of the outermost one that hold the settings of a call: Gemini, Bedrock, and those of Hugging Face and DashScope.
const SETTINGS: &[&str] = &["generationConfig", "generation_config", "inferenceConfig", "parameters"];
/// The most tokens that a call wants to have back.
const OUTPUT: &[&str] =
    &["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "max_new_tokens"];
/// How many answers it wants.
const ANSWERS: &[&str] = &["n", "best_of", "candidateCount", "candidate_count"];

/// What a request's body says of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Estimate<'a> {
    /// The last string named `model` in the outermost object, as sent.
    pub(crate) model: Option<&'a [u8]>,
    /// The tokens of its texts, images and files; with `output` nothing where the body is no whole JSON object, or too deep.
    tokens: Option<Tokens>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Tokens {
    input: f64,
    /// The most it wants to have back.
    output: f64,
}

impl<'a> Estimate<'a> {
    /// Reads a body to its end.
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
                    // Names of messages and tools are tokens; those of the outermost object are the API's own.
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

    /// What the call costs, as its provider counts.
    pub(crate) fn cost(&self, pricing: Pricing) -> Cost {
        let Some(Tokens { input, output }) = self.tokens else { return Cost::unknown() };
        let tokens = match pricing {
            Pricing::Larger => input.max(output),
            Pricing::Sum => input + output,
        };
        Cost::tokens(tokens).with_input(input).with_output(output)
    }
}

/// What an object or an array is.
#[derive(Clone, Copy, PartialEq)]
enum Location {
    /// The outermost object.
    Top,
    /// Numbers of tokens, or arrays of them.
    Ids,
    Settings,
    /// An image, a sound or a file.
    Media,
    Other,
}

/// The objects and arrays that have begun and not ended.
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

/// A number of tokens or answers; none where it is negative, and never beyond reason.
fn number(digits: &[u8]) -> f64 {
    let number =
        std::str::from_utf8(&digits[..digits.len().min(DIGITS_MAX)]).ok().and_then(|digits| digits.parse::<f64>().ok());
    number.map_or(0.0, |number| number.clamp(0.0, TOKENS_MAX))
}

#[cfg(test)]
mod tests;
