//! The man page, in the macros of man(7).

use std::fmt::Write as _;

use super::help::{FORM, PASSED_ON, PURPOSE, REFERENCES, USAGE, codes};
use super::{COMMANDS, FLAGS, PREFIX_TEXT, QUESTIONS};
use crate::store;

/// The day of the last change to what the page says: every man page carries one.
const DATE: &str = "2026-11-26";

/// The text of `secret-init.1`.
#[must_use]
pub fn man_page() -> String {
    let mut page = Page(String::new());
    let version = concat!("secret-init ", env!("CARGO_PKG_VERSION"));
    page.line(&format!(".TH SECRET\\-INIT 1 \"{DATE}\" \"{}\" \"User Commands\"", escaped(version)));
    // Names are to be found and copied whole.
    page.line(".nh\n.ad l");
    page.section("NAME");
    page.line(&format!("secret\\-init \\- {PURPOSE}"));
    page.section("SYNOPSIS");
    for (index, usage) in USAGE.iter().enumerate() {
        page.line(if index == 0 { ".B secret\\-init" } else { ".br\n.B secret\\-init" });
        page.text(usage);
    }
    description(&mut page);
    page.section("COMMANDS");
    page.text("Without a command the program is run.");
    for verb in COMMANDS {
        page.item(&verb.usage(), verb.help);
    }
    options(&mut page);
    environment(&mut page);
    exit_status(&mut page);
    files(&mut page);
    examples(&mut page);
    page.0
}

fn description(page: &mut Page) {
    page.section("DESCRIPTION");
    page.text(
        "secret-init is the init of a container. It reads the secrets that the environment refers to, hands them to the program as variables or as files in memory, \
         runs the program, forwards signals to it, reaps orphans, and ends with the program's exit code. Nothing is started unless every secret was delivered.",
    );
    page.paragraph("What refers to a secret:");
    for (name, becomes) in REFERENCES {
        page.item(name, becomes);
    }
    page.paragraph(&format!("A reference is {FORM}, where SCHEME is one of:"));
    for row in store::ROWS {
        page.item(row.name, row.summary);
    }
}

fn options(page: &mut Page) {
    page.section("OPTIONS");
    page.text("Options end at the program, or at --. A flag overrides its variable.");
    for flag in FLAGS {
        let short = flag.short.map_or_else(String::new, |short| format!("-{short}, "));
        let value = flag.value.name().map_or_else(String::new, |name| format!(" \\fI{}\\fR", escaped(name)));
        page.tagged(&format!("\\fB{}\\fR{value}", escaped(&format!("{short}--{}", flag.long))), &flag.summary());
    }
    for question in QUESTIONS {
        page.item(&format!("-{}, --{}", question.short, question.long), question.help);
    }
}

fn environment(page: &mut Page) {
    page.section("ENVIRONMENT");
    page.text("The program gets the environment less what refers to a secret and less these, with which the options can be set. A switch is 1, true or yes; or 0, false or no.");
    for flag in FLAGS {
        if let Some(suffix) = flag.variable {
            page.item(&format!("{PREFIX_TEXT}{suffix}"), &format!("--{}", flag.long));
        }
    }
    page.paragraph("Besides:");
    page.item(
        "VAULT_FROM_PATH, BAO_FROM_PATH",
        "paths in Vault and OpenBao, with commas between them: every key of each secret becomes a variable",
    );
    page.item("VAULT_*, BAO_*, AWS_*", "where the stores are and how to log in, as their own command lines read it");
    page.item("SSL_CERT_FILE, HTTPS_PROXY, ALL_PROXY, NO_PROXY", "the authorities of all stores, and the way to them");
    page.item("CREDENTIALS_DIRECTORY", "where the secrets of cred: are, as systemd sets it");
    page.item("KUBERNETES_SERVICE_HOST", "that it is set tells a Kubernetes pod, which shares /dev/shm");
    page.item("PATH", "where the program is looked for, as the program gets it");
    page.item("NO_COLOR, TERM", "there are colours on a terminal alone, and none when NO_COLOR is set, or TERM is not or is dumb");
}

fn exit_status(page: &mut Page) {
    page.section("EXIT STATUS");
    for (code, meaning) in PASSED_ON {
        page.item(code, meaning);
    }
    for (code, meaning) in codes() {
        page.item(&code.to_string(), meaning);
    }
}

fn files(page: &mut Page) {
    page.section("FILES");
    page.item("/run/secrets", "where secrets usually are; below it NAME=file:/run/secrets/x is a reference");
    page.item("/run/secret-init", "where secret files are written when it is in memory (tmpfs)");
    page.item("/dev/shm", "has a directory for secret files otherwise, but not in Kubernetes");
    page.item("/etc/passwd, /etc/group", "where --user finds names");
    page.item("/dev/termination-log", "gets the reason for the end of a container in Kubernetes, always as text");
}

fn examples(page: &mut Page) {
    page.section("EXAMPLES");
    page.example("In an image:", "ENTRYPOINT [\"secret-init\", \"--\"]\nCMD [\"myapp\", \"--serve\"]");
    page.example(
        "The program gets DB_PASSWORD:",
        "docker run -v ./db_password:/run/secrets/db:ro \\\n    -e DB_PASSWORD_FILE=/run/secrets/db myimage",
    );
    page.example("Read a root-only secret, and run the program as another user:", "secret-init --user 1000:1000 -- myapp");
    page.example("What would be done, and whether it works, in an image:", "docker run --entrypoint secret-init myimage check");
    page.example("A command with the secrets in a container that runs:", "docker exec mycontainer secret-init --exec -- mytool");
    page.example(
        "This page, and completions for each shell, where a distribution keeps them:",
        "secret-init generate man >/usr/share/man/man1/secret-init.1\n\
         secret-init generate bash >/usr/share/bash-completion/completions/secret-init\n\
         secret-init generate zsh >/usr/share/zsh/site-functions/_secret-init\n\
         secret-init generate fish >/usr/share/fish/vendor_completions.d/secret-init.fish",
    );
}

/// A page as it grows. Texts are given as they are to be read.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}");
    }

    fn section(&mut self, name: &str) {
        self.line(&format!(".SH {name}"));
    }

    /// Sentences, each on a line of its own.
    fn text(&mut self, text: &str) {
        self.line(&escaped(&text.replace(". ", ".\n")));
    }

    fn paragraph(&mut self, text: &str) {
        self.line(".PP");
        self.text(text);
    }

    /// A row of a list.
    fn item(&mut self, tag: &str, text: &str) {
        self.tagged(&format!("\\fB{}\\fR", escaped(tag)), text);
    }

    /// The same with a tag that is roff already.
    fn tagged(&mut self, tag: &str, text: &str) {
        self.line(".TP");
        self.line(tag);
        self.text(text);
    }

    /// A row of a list with lines that are shown as they are.
    fn example(&mut self, tag: &str, lines: &str) {
        self.line(".TP");
        self.text(tag);
        self.line(".nf");
        self.line(&escaped(lines));
        self.line(".fi");
    }
}

/// Text as roff takes it for itself. A `-` becomes the character of the keyboard, so that what is copied from the page works.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for (index, char) in text.char_indices() {
        match char {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '"' => escaped.push_str("\\(dq"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            '`' => escaped.push_str("\\(ga"),
            // At the beginning of a line it would be a macro.
            '.' if index == 0 || text[..index].ends_with('\n') => escaped.push_str("\\&."),
            char if char.is_ascii() => escaped.push(char),
            char => {
                let _ = write!(escaped, "\\[u{:04X}]", u32::from(char));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_taken_for_a_macro() {
        assert_eq!(escaped(".a\n.b 'c' \\d --e …"), "\\&.a\n\\&.b \\(aqc\\(aq \\ed \\-\\-e \\[u2026]");
    }
}
