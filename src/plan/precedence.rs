//! Which of the places that set a variable wins: the container, a file of `--env-file`, or `env:` of the configuration.

use std::collections::BTreeMap;

use super::conventions::plain_name;
use crate::config::{Document, Position};
use crate::environment::{Environment, Variable};

/// What asks for a secret, or does not: a variable, or a file of the configuration.
pub struct Entry<'a> {
    /// The name of the variable, or the path of the file.
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Where in the configuration it stands; none for a variable of the container or of an environment file.
    pub at: Option<Position>,
}

/// A variable of the configuration that another place sets too.
pub struct Loser<'a> {
    pub entry: Entry<'a>,
    /// The variable that won: one of that name, or the `*_FILE` variable for it.
    pub winner: &'a [u8],
}

/// The variables, by name, since Docker hands them over in an order that varies from one start to the next; and those that lost, in the order of the file.
/// What is taken is a `*_FILE` variable that we act on.
pub fn merge<'a>(
    environment: &'a Environment,
    document: &'a Document,
    is_taken: impl Fn(&Entry) -> bool,
) -> (Vec<Entry<'a>>, Vec<Loser<'a>>) {
    let entry = |Variable { name, value }: &'a Variable| (name.as_slice(), Entry { name, value, at: None });
    let inherited: BTreeMap<&[u8], Entry> = environment.variables.iter().map(entry).collect();
    let mut own: BTreeMap<&[u8], Entry> = BTreeMap::new();
    let mut losers = Vec::new();
    for (name, text) in &document.env.0 {
        let entry = Entry { name: name.0.as_bytes(), value: text.0.as_bytes(), at: Some(text.at) };
        // Of equal values neither wins, and in the configuration names are known. An empty variable counts as unset.
        let same = inherited.get(entry.name).filter(|other| !other.value.is_empty() || entry.value.is_empty());
        let winner = match same {
            Some(other) if other.value == entry.value => None,
            Some(other) => Some(other.name),
            None => file_for(entry.name, &inherited, &is_taken),
        };
        match winner {
            Some(winner) => losers.push(Loser { entry, winner }),
            None => {
                own.insert(entry.name, entry);
            }
        }
    }
    let mut entries = inherited;
    entries.append(&mut own);
    (entries.into_values().collect(), losers)
}

/// The `*_FILE` variable of the container that gives this variable its value.
fn file_for<'a>(name: &[u8], inherited: &BTreeMap<&'a [u8], Entry<'a>>, is_taken: impl Fn(&Entry) -> bool) -> Option<&'a [u8]> {
    let names = [[b"FILE__", name].concat(), [name, b"_FILE"].concat()];
    let mut files = names.iter().filter_map(|file| inherited.get(file.as_slice()));
    files.find(|file| plain_name(file.name) == Some(name) && is_taken(file)).map(|file| file.name)
}
