//! Detects that something is exhausted from a noun and a verb near each other: `Your prepayment credits are depleted`.

/// The maximum number of words between a noun and the verb after it.
const WORDS_BETWEEN: usize = 4;
/// The maximum length of a sentence that is searched, in bytes.
const LONGEST_SENTENCE: usize = 160;
/// The words allowed between a verb and the noun after it: `exhausted all your free credits`.
const ATTRIBUTES: &[&[u8]] = &[
    b"account",
    b"ai",
    b"all",
    b"api",
    b"any",
    b"available",
    b"cash",
    b"credit",
    b"daily",
    b"free",
    b"included",
    b"its",
    b"monthly",
    b"my",
    b"of",
    b"organization",
    b"paid",
    b"plan",
    b"prepaid",
    b"project",
    b"promotional",
    b"remaining",
    b"request",
    b"sufficient",
    b"team",
    b"the",
    b"their",
    b"token",
    b"total",
    b"trial",
    b"usage",
    b"user",
    b"weekly",
    b"workspace",
    b"your",
];

/// The kind of thing that can be exhausted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Noun {
    Money,
    Allowance,
}

/// The positions of the last noun and the last verb, while a text is read from its start.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Spent {
    noun: Option<(Noun, usize)>,
    verb: Option<usize>,
}

impl Spent {
    /// Records a noun from `start` to `end`. Returns true if a verb precedes it closely.
    pub(crate) fn noun(&mut self, noun: Noun, text: &[u8], start: usize, end: usize) -> bool {
        self.noun = Some((noun, end));
        self.verb.is_some_and(|verb| is_object(text, verb, start)) && !conditional(text, start)
    }

    /// Records a verb. Returns the noun that precedes it closely.
    pub(crate) fn verb(&mut self, text: &[u8], start: usize, end: usize) -> Option<Noun> {
        self.verb = Some(end);
        let (noun, at) = self.noun?;
        (near(text, at, start) && !conditional(text, start)).then_some(noun)
    }
}

/// Returns true if the word at `to` is the object of the verb that ends at `from`.
fn is_object(text: &[u8], from: usize, to: usize) -> bool {
    let attribute = |word: &[u8]| ATTRIBUTES.iter().any(|known| word.eq_ignore_ascii_case(known));
    text.get(from..to).is_some_and(|between| words(between).all(attribute))
}

/// Returns true if two positions are in one part of a sentence, with few words between them.
fn near(text: &[u8], from: usize, to: usize) -> bool {
    let Some(between) = text.get(from..to) else { return false };
    words(between).count() <= WORDS_BETWEEN && !between.contains(&b',') && !ends_sentence(between)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| b.is_ascii_whitespace() || *b == b'-' || *b == b'_').filter(|word| !word.is_empty())
}

fn ends_sentence(text: &[u8]) -> bool {
    let stop = |pair: &[u8]| matches!(pair[0], b'.' | b'!' | b'?' | b';') && pair[1].is_ascii_whitespace();
    text.contains(&b'\n') || text.windows(2).any(stop)
}

/// Returns true if the sentence up to `at` is a condition: `if your balance is insufficient`.
fn conditional(text: &[u8], at: usize) -> bool {
    let text = &text[at.saturating_sub(LONGEST_SENTENCE)..at];
    let begins = text.windows(2).rposition(ends_sentence).map_or(0, |stop| stop + 2);
    let mut words = text[begins..].split(|b| !b.is_ascii_alphabetic());
    words.any(|word| [&b"if"[..], b"when", b"unless", b"once"].iter().any(|other| word.eq_ignore_ascii_case(other)))
}

#[cfg(test)]
mod tests {
    use crate::classify::message::Wording;

    #[test]
    fn a_noun_and_its_verb() {
        for (text, stop, weak) in [
            ("Your prepayment credits are depleted.", true, false),
            ("Insufficient account balance", true, false),
            ("Remaining balance: $0.00", true, false),
            ("Remaining balance: $0.53", false, false),
            ("You have 0 credits left", true, false),
            ("账户余额为 0，请续费", true, false),
            ("账户余额为0.5元", false, false),
            ("Your credits are not used up", false, false),
            ("You have used up all your free credits", true, false),
            ("Your wallet is empty, please add funds", true, false),
            ("The quota of this key is exhausted", false, true),
            ("Your allowance has been used up", false, true),
            ("Quota exhausted. Add credits to go on", false, true),
            ("Too many requests. Your balance is fine", false, false),
            ("Contact us if your balance is insufficient", false, false),
            ("Insufficient permissions to view the balance", false, false),
            ("All retries exhausted for this provider, credits were refunded", false, false),
            ("Credits were refunded, all retries exhausted", false, false),
            ("The service is out of reach; your credits were not used", false, false),
        ] {
            let line = format!("{text}\n");
            let words = Wording::read(&line, &|| None);
            assert_eq!((words.stop, words.stop_weak), (stop, weak), "{text}");
            assert_eq!(words.account, stop, "{text}");
        }
    }
}
