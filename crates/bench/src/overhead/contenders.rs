//! Who is compared: the bare service, tower's pair, and our layers alone and together.

use tower_429::{PacingConfig, RetryOn429Layer};

use super::call::{self, Server};
use super::measure::Contender;

/// Where each of them stands in [`all`].
pub const BARE: usize = 0;
/// tower's own pair.
pub const TOWER: usize = 1;
/// Both of ours.
pub const BOTH: usize = 4;
/// The same three with six rate headers on each answer.
pub const BARE_SHOWN: usize = 6;
/// tower's own pair.
pub const TOWER_SHOWN: usize = 7;
/// Both of ours.
pub const BOTH_SHOWN: usize = 8;

/// All of them, in the order of the table.
pub fn all() -> [Contender; 9] {
    let plain = || Server::new(1);
    let shown = || Server::new(1).with_rate_headers();
    let ours = RetryOn429Layer::new;
    // A token dimension that no header confirms: the request is read to its end for its cost.
    let tokens = || ours().pacing(PacingConfig::new().tokens_per_minute(u32::MAX));
    [
        Contender::new("bare", plain()),
        Contender::new("tower's pair", call::tower_pair(plain())),
        Contender::new("retry", call::retry(&ours(), plain())),
        Contender::new("limit", call::limit(plain())),
        Contender::new("**both**", call::both(&ours(), plain())),
        Contender::new("both, tokens known", call::both(&tokens(), plain())),
        Contender::new("bare, six rate headers", shown()),
        Contender::new("tower's pair, six rate headers", call::tower_pair(shown())),
        Contender::new("**both, six rate headers**", call::both(&ours(), shown())),
    ]
}

/// The one that another is compared with: it meets the same answers.
pub fn beside(at: usize, plain: usize, shown: usize) -> usize {
    if at < BARE_SHOWN { plain } else { shown }
}
