//! The query of the page: the filter, the words that are searched for, and the pause.

use std::fmt::Write as _;

use form_urlencoded::Serializer;

use crate::status::{DatabaseStatus, TargetMark, TargetStatus};

/// The longest search in bytes.
const MAX_SEARCH: usize = 200;

/// The databases and targets that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Databases in trouble, without the targets that are up and published, unless their checks
    /// say nothing.
    Trouble,
    /// Targets that are down.
    Down,
    /// Targets in maintenance.
    Maintenance,
}

impl Filter {
    /// Every filter, in the order of the page.
    pub(super) const ALL: [Filter; 4] =
        [Filter::Trouble, Filter::Down, Filter::Maintenance, Filter::All];

    fn word(self) -> &'static str {
        match self {
            Filter::All => "all",
            Filter::Trouble => "trouble",
            Filter::Down => "down",
            Filter::Maintenance => "maintenance",
        }
    }

    /// Returns whether a target of a database that is shown is shown.
    fn shows(self, target: &TargetStatus) -> bool {
        match self {
            Filter::All => true,
            Filter::Trouble => {
                target.mark() != TargetMark::Up
                    || !target.published
                    || target.inconclusive_since.is_some()
            }
            Filter::Down => target.mark() == TargetMark::Down,
            Filter::Maintenance => target.mark() == TargetMark::Maintenance,
        }
    }
}

/// The renewal of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// The browser loads the page again from time to time.
    #[default]
    On,
    /// The page stays as it is.
    Paused,
}

/// The query of a request for the page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// The filter.
    pub filter: Filter,
    /// The text that is searched for; empty for all.
    pub search: String,
    /// The renewal.
    pub refresh: Refresh,
}

impl Query {
    /// Reads the query of a URL. The last value of a key counts, and other keys do not. The error
    /// says what to change.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Query::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "show" => parsed.filter = parse_filter(&value)?,
                "q" if value.len() > MAX_SEARCH => {
                    return Err(format!("q is too long: it may have {MAX_SEARCH} bytes"));
                }
                "q" => parsed.search = value.trim().to_owned(),
                "refresh" => {
                    parsed.refresh = match &*value {
                        "on" => Refresh::On,
                        "off" => Refresh::Paused,
                        _ => return Err("refresh is neither on nor off".to_owned()),
                    }
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Returns a link to the same page with another filter.
    pub(super) fn with_filter(&self, filter: Filter) -> Self {
        Self { filter, ..self.clone() }
    }

    /// Returns a link to the same page with another renewal.
    pub(super) fn with_refresh(&self, refresh: Refresh) -> Self {
        Self { refresh, ..self.clone() }
    }

    /// Returns the fields that are not the default, for a link or for a form.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let show = (self.filter != Filter::All).then(|| ("show", self.filter.word()));
        let search = (!self.search.is_empty()).then_some(("q", &*self.search));
        let refresh = (self.refresh == Refresh::Paused).then_some(("refresh", "off"));
        [show, search, refresh].into_iter().flatten()
    }

    /// Returns the link, relative to the page.
    pub(super) fn link(&self) -> String {
        let mut link = String::from("?");
        let query = Serializer::new(String::new()).extend_pairs(self.fields()).finish();
        let _ = write!(link, "{query}");
        link
    }

    /// Returns the indices of the targets that are shown, the worst first; none if the database is
    /// not shown.
    pub(super) fn select(&self, database: &DatabaseStatus) -> Option<Vec<usize>> {
        if self.filter == Filter::Trouble && !database.is_in_trouble() {
            return None;
        }
        let words: Vec<String> = self.search.split_whitespace().map(str::to_lowercase).collect();
        let own = words_of_database(database);
        let missing: Vec<&String> = words.iter().filter(|word| !own.contains(&**word)).collect();
        let targets = database.targets.iter().enumerate().filter(|(_, target)| {
            self.filter.shows(target)
                && (missing.is_empty() || has_words(&words_of_target(target), &missing))
        });
        let mut selected: Vec<usize> = targets.map(|(index, _)| index).collect();
        selected.sort_by_key(|index| database.targets[*index].mark());
        let shown_without_targets =
            missing.is_empty() && matches!(self.filter, Filter::All | Filter::Trouble);
        (shown_without_targets || !selected.is_empty()).then_some(selected)
    }
}

fn parse_filter(word: &str) -> Result<Filter, String> {
    Filter::ALL.into_iter().find(|filter| filter.word() == word).ok_or_else(|| {
        let words: Vec<&str> = Filter::ALL.into_iter().map(Filter::word).collect();
        format!("show is none of {}", words.join(", "))
    })
}

fn has_words(text: &str, words: &[&String]) -> bool {
    words.iter().all(|word| text.contains(&***word))
}

fn words_of_database(database: &DatabaseStatus) -> String {
    let DatabaseStatus { namespace, service, condition, names, .. } = database;
    let mut text = format!("{namespace}/{service} {}", condition.as_deref().unwrap_or_default());
    names.iter().for_each(|name| text.extend([" ", &name.name]));
    text.to_lowercase()
}

fn words_of_target(target: &TargetStatus) -> String {
    let texts = [
        Some(&*target.address),
        target.hostname.as_deref(),
        target.name.as_deref(),
        target.reason.as_deref(),
        target.maintenance.as_deref(),
        Some(target.mark().word()),
    ];
    texts.into_iter().flatten().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests;
