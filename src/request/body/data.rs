//! Detects images, audio and files in a request body, which are not counted as text.

use super::is_one_of;

/// The minimum length of a base64 string that counts as data: 1 KiB. Shorter strings may be names or hashes.
const DATA_LEN: usize = 1_024;
/// The maximum length of the type in a `data:` URL.
const URL_HEAD: usize = 256;

/// Names of objects that hold one image, audio clip or file, with Gemini, Anthropic and OpenAI.
const MEDIA: &[&str] = &["inlineData", "inline_data", "fileData", "file_data", "source", "input_audio", "image_url"];
/// Members of such an object that hold its address.
const ADDRESS: &[&str] = &["url", "fileUri", "file_uri"];

/// Returns true if an object of this name holds an image, an audio clip or a file.
pub(super) fn holds_media(name: &[u8]) -> bool {
    is_one_of(name, MEDIA)
}

/// Returns true if a string is an image, an audio clip or a file, or its address.
pub(super) fn is_part(string: &[u8], name: &[u8], in_media: bool) -> bool {
    let is_address = name == b"image_url" || (in_media && is_one_of(name, ADDRESS));
    let is_content = in_media && name == b"data";
    is_data_url(string)
        || (is_address && string.iter().all(u8::is_ascii_graphic))
        || ((is_content || string.len() >= DATA_LEN) && is_base64(string))
}

/// Returns true for `data:image/png;base64,…`. A sentence that begins with `data:` is text.
fn is_data_url(string: &[u8]) -> bool {
    let Some(rest) = string.strip_prefix(b"data:") else { return false };
    let head = &rest[..rest.len().min(URL_HEAD)];
    let Some(end) = memchr::memchr(b',', head) else { return false };
    head[..end].contains(&b'/') && !head[..end].contains(&b' ')
}

/// Returns true for base64 or URL-safe base64, with or without padding. JSON may escape `/` as `\/`.
fn is_base64(string: &[u8]) -> bool {
    let len = string.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let (data, padding) = string.split_at(len);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'\\');
    // The string is checked in pieces, because most texts fail in the first one.
    if padding.len() > 2 || !data.chunks(64).all(|piece| piece.iter().fold(true, |all, byte| all & is_digit(byte))) {
        return false;
    }
    let mut escapes = memchr::memchr_iter(b'\\', data);
    let mut digits = data.len();
    let escapes_are_slashes = escapes.all(|at| {
        digits -= 1;
        data.get(at + 1) == Some(&b'/')
    });
    let left_over = digits % 4;
    escapes_are_slashes && left_over != 1 && (padding.is_empty() || left_over + padding.len() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_from_text() {
        let a = |n: usize| "A".repeat(n);
        for (string, name, in_media, expected) in [
            ("data:image/png;base64,iVBORw0KGgo=".to_owned(), "url", false, true),
            (r"data:image\/png;base64,iVBORw0KGgo=".to_owned(), "text", false, true),
            ("data:application/pdf,x".to_owned(), "file_data", false, true),
            ("data: a word, and a/b".to_owned(), "text", false, false),
            ("data:the/first of these, of all".to_owned(), "text", false, false),
            ("data:".to_owned(), "text", false, false),
            (a(1_024), "text", false, true),
            (a(1_023), "text", false, false),
            (a(1_025), "text", false, false),
            (a(1_026), "text", false, true),
            (a(1_026) + "==", "text", false, true),
            (a(1_027) + "=", "text", false, true),
            (a(1_028) + "=", "text", false, false),
            (a(1_024) + "===", "text", false, false),
            (a(1_023) + r"\/", "text", false, true),
            (a(1_023) + r"\n", "text", false, false),
            (a(1_023) + " ", "text", false, false),
            (a(1_020) + "a,b:", "text", false, false),
            ("iVBORw0KGgo=".to_owned(), "data", true, true),
            ("iVBORw0KGgo=".to_owned(), "data", false, false),
            ("a document in plain text".to_owned(), "data", true, false),
            ("一篇没有空格的文章".to_owned(), "data", true, false),
            ("https://example.com/a.png".to_owned(), "url", true, true),
            ("https://example.com/a.png".to_owned(), "url", false, false),
            ("https://example.com/a.png".to_owned(), "image_url", false, true),
            ("image/png".to_owned(), "media_type", true, false),
        ] {
            assert_eq!(is_part(string.as_bytes(), name.as_bytes(), in_media), expected, "{name}: {string}");
        }
    }
}
