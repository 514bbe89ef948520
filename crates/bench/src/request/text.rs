//! Long texts to cut requests out of: made once, since a run makes thousands of requests.

use std::sync::LazyLock;

use bytes::Bytes;
use fastrand::Rng;

/// English prose has about four characters a token.
pub const PROSE_TOKENS_A_CHARACTER: f64 = 0.25;
/// Common Chinese text has about 0.7 tokens a character in `o200k`.
pub const CHINESE_TOKENS_A_CHARACTER: f64 = 0.7;
/// The token ids of one request to embed.
pub const IDS: usize = INPUTS * IDS_AN_INPUT;

/// The tokens of the chat with an image: 765 of the image, as OpenAI counts one of 1,024 by 1,024 at high detail, and a
/// question of 235.
pub const IMAGE_CHAT: f64 = 765.0 + QUESTION;

const QUESTION: f64 = 235.0;
/// Characters of the image's base64.
const IMAGE: usize = 2_000_000;
const INPUTS: usize = 16;
const IDS_AN_INPUT: usize = 2_000;
/// Ids are below this, as `cl100k` has them.
const VOCABULARY: u32 = 100_000;
/// The longest text that is asked for, and a little more: 128 Ki characters.
const LONGEST: usize = 128 << 10;
/// Texts of different calls begin at so many different characters.
const BEGINNINGS: usize = 1_000;
/// Bytes of a recording for each token of its text. (Real ones have hundreds.)
const RECORDING: f64 = 8.0;

/// English.
pub(super) static PROSE: LazyLock<Text> = LazyLock::new(|| Text::new(include_str!("../../data/prose.txt"), escape, 1));
/// Chinese, all of characters of three bytes.
pub(super) static CHINESE: LazyLock<Text> =
    LazyLock::new(|| Text::new(include_str!("../../data/chinese.txt"), escape, 3));
/// The same, each character as six of ASCII.
pub(super) static CHINESE_ESCAPED: LazyLock<Text> =
    LazyLock::new(|| Text::new(include_str!("../../data/chinese.txt"), escape_all, 6));

/// A text as it stands between the quotes of JSON, repeated until it is long.
#[derive(Debug)]
pub(super) struct Text {
    escaped: String,
    /// Bytes of each character.
    width: usize,
}

fn escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn escape_all(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

impl Text {
    fn new(text: &str, escape: fn(&str) -> String, width: usize) -> Self {
        let once = escape(text);
        Self { escaped: once.repeat(LONGEST * width / once.len() + 1), width }
    }

    /// So many characters; those of another call begin elsewhere.
    pub(super) fn slice(&self, number: usize, characters: f64) -> &str {
        let from = self.boundary(number % BEGINNINGS * self.width);
        &self.escaped[from..self.boundary(from + characters.round() as usize * self.width)]
    }

    /// The beginning of the character here, not in the middle of an escape.
    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.escaped.len());
        let behind = self.escaped.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        at - behind
    }
}

/// The body of a request that embeds token ids, each time the same.
pub(super) fn token_ids() -> Bytes {
    static BODY: LazyLock<Bytes> = LazyLock::new(|| {
        let mut rng = Rng::with_seed(16);
        let mut input = || (0..IDS_AN_INPUT).map(|_| rng.u32(..VOCABULARY)).collect::<Vec<_>>();
        let inputs: Vec<_> = (0..INPUTS).map(|_| input()).collect();
        serde_json::json!({ "model": "text-embedding-3-small", "input": inputs }).to_string().into()
    });
    BODY.clone()
}

/// The body of a chat about an image, each time the same.
pub(super) fn image_chat() -> Bytes {
    static BODY: LazyLock<Bytes> = LazyLock::new(|| {
        let mut rng = Rng::with_seed(2);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let image: String = (0..IMAGE).map(|_| char::from(letters[rng.usize(..letters.len())])).collect();
        let text = PROSE.slice(0, QUESTION / PROSE_TOKENS_A_CHARACTER);
        format!(
            r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}},{{"type":"image_url","image_url":{{"url":"data:image/jpeg;base64,/9j/{image}"}}}}]}}]}}"#
        )
        .into()
    });
    BODY.clone()
}

/// The bytes of a recording of so many tokens.
pub(super) fn recording(tokens: f64) -> &'static [u8] {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut rng = Rng::with_seed(8);
        (0..LONGEST).map(|_| rng.u8(..)).collect()
    });
    &NOISE[..((tokens * RECORDING) as usize).min(LONGEST)]
}
