//! An environment file: names and line numbers are sound, errors quote nothing, and what was read is the same when it is written down and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secret_init::secret::Secret;
use secret_init::store::{Line, parse_dotenv};

const CAUSES: [&str; 4] = ["no name of a variable", "no = after the name", "a quote is not closed", "text after the closing quote"];

fuzz_target!(|file: &[u8]| match parse_dotenv(&Secret::copy_of(file)) {
    Ok(lines) => {
        lines.iter().for_each(is_sound);
        assert_eq!(pairs(&read(&written(&lines, b'"', b"\"\\$"))), pairs(&lines));
        // A backslash in single quotes is one, but for that before a quote.
        if !lines.iter().any(|line| line.value.expose().contains(&b'\\')) {
            assert_eq!(pairs(&read(&written(&lines, b'\'', b"'"))), pairs(&lines));
        }
        // Nothing reaches over the end of the file.
        let more = read(&[file, b"\nLAST=1\n"].concat());
        assert_eq!(pairs(&more), [pairs(&lines), vec![("LAST", b"1".as_slice())]].concat());
    }
    Err(unreadable) => {
        let text = unreadable.to_string();
        let said = text.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
        let (line, cause) = said.unwrap_or_else(|| panic!("{text}"));
        let line: usize = line.parse().unwrap_or_else(|_| panic!("{text}"));
        assert!((1..=file.split(|&byte| byte == b'\n').count()).contains(&line), "{text}");
        assert!(CAUSES.contains(&cause), "{text}");
    }
});

fn is_sound(line: &Line) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    assert!(line.name.bytes().all(is_plain) && line.name.bytes().next().is_some_and(|first| !first.is_ascii_digit()), "{:?}", line.name);
}

fn read(file: &[u8]) -> Vec<Line> {
    parse_dotenv(&Secret::copy_of(file)).unwrap_or_else(|unreadable| panic!("{unreadable} of {:?}", String::from_utf8_lossy(file)))
}

fn pairs(lines: &[Line]) -> Vec<(&str, &[u8])> {
    lines.iter().map(|line| (line.name.as_str(), line.value.expose())).collect()
}

/// The lines in quotes, with a backslash before each of the special bytes.
fn written(lines: &[Line], quote: u8, special: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for line in lines {
        file.extend([line.name.as_bytes(), b"=", &[quote]].concat());
        for &byte in line.value.expose() {
            if special.contains(&byte) {
                file.push(b'\\');
            }
            file.push(byte);
        }
        file.extend([quote, b'\n']);
    }
    file
}
