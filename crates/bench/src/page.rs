//! Puts figures into a page of documentation, between marks that name them.

/// Figures, and the mark that they belong to.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The name in the mark.
    pub name: &'static str,
    /// Markdown that ends with a line break.
    pub text: String,
}

const END: &str = "<!-- end of figures -->";

/// The page with these figures in place of those that it has.
///
/// # Errors
///
/// A mark is missing, has no end, or has no figures.
pub fn fill(page: &str, all: &[Figures]) -> Result<String, String> {
    let mut filled = page.to_owned();
    for Figures { name, text } in all {
        let mark = format!("<!-- figures: {name} -->\n");
        let from = filled.find(&mark).ok_or_else(|| format!("the page has no line {mark:?}"))? + mark.len();
        let length = filled[from..].find(END).ok_or_else(|| format!("there is no {END:?} after {mark:?}"))?;
        filled.replace_range(from..from + length, &format!("\n{text}\n"));
    }
    match filled.matches("<!-- figures: ").count() {
        marks if marks == all.len() => Ok(filled),
        marks => Err(format!("the page has {marks} marks for {} tables", all.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n<!-- figures: a -->\nold\n<!-- end of figures -->\n\nand\n\n<!-- figures: b -->\n<!-- end of figures -->\n";

    fn figures(name: &'static str) -> Figures {
        Figures { name, text: format!("| {name} |\n") }
    }

    #[test]
    fn figures_stand_between_their_marks_and_filling_twice_changes_nothing() {
        let all = [figures("a"), figures("b")];
        let filled = fill(PAGE, &all).unwrap();
        assert_eq!(
            filled,
            "# A\n\n<!-- figures: a -->\n\n| a |\n\n<!-- end of figures -->\n\nand\n\n<!-- figures: b -->\n\n| b |\n\n<!-- end of figures -->\n"
        );
        assert_eq!(fill(&filled, &all).unwrap(), filled);
    }

    #[test]
    fn a_page_whose_marks_do_not_fit_is_an_error() {
        assert!(fill(PAGE, &[figures("a")]).unwrap_err().contains("2 marks for 1"));
        assert!(fill(PAGE, &[figures("c")]).unwrap_err().contains("figures: c"));
        assert!(fill("<!-- figures: a -->\n", &[figures("a")]).unwrap_err().contains("end of figures"));
    }
}
