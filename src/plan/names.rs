//! The names of secrets, and which of them are used.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::config::{Config, Located, SecretName};
use crate::template::{Named, Names};

/// The secrets that the configuration names. It notes which it was asked for.
pub struct Noted<'a> {
    config: &'a Config,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Noted<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config, used: RefCell::default() }
    }

    /// The names that were not asked for, of secrets that can be had.
    pub fn unused(&self) -> Vec<&'a Located<SecretName>> {
        let used = self.used.borrow();
        let secrets = self.config.document.secrets.0.iter();
        secrets.filter(|(name, source)| source.from.is_some() && !used.contains(&name.0)).map(|(name, _)| name).collect()
    }
}

impl Names for Noted<'_> {
    fn find(&self, name: &str) -> Named<'_> {
        self.used.borrow_mut().insert(name.to_owned());
        self.config.find(name)
    }

    /// To be known is not to be used.
    fn has(&self, name: &str) -> bool {
        self.config.has(name)
    }
}
