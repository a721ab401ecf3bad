//! The program in the images of the tests, static, so that it runs in an image from scratch. It shows that secrets arrived, and how long they are.

fn main() {
    for (name, value) in std::env::vars() {
        if name.ends_with("_FILE") {
            let content = std::fs::read(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
            println!("{name}: {value} has {} bytes", content.len());
        } else if name.ends_with("PASSWORD") || name.ends_with("URL") {
            println!("{name} has {} bytes", value.len());
        }
    }
    if std::env::args().any(|argument| argument == "--serve") {
        println!("serving");
        loop {
            std::thread::park();
        }
    }
}
