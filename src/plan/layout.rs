//! Which targets can be beside each other: one source for a variable and for a file, and a directory of its own for each group.

use super::{File, Target};

/// Whether two targets cannot both be: the same variable, the same file, or a file where the other needs a directory.
pub fn collide(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::File(File { path: one, .. }), Target::File(File { path: other, .. })) => {
            one == other || is_below(one, other) || is_below(other, one)
        }
        _ => one.variable().is_some() && one.variable() == other.variable(),
    }
}

/// Whether a file can be beside others: a group is one directory that holds nothing else, so that it can be swapped as a whole.
///
/// # Errors
///
/// What does not fit, and what to do.
pub fn check_group<'a>(file: &File, mut others: impl Iterator<Item = &'a File>) -> Result<(), (String, &'static str)> {
    const OWN: &str = "a group has a directory of its own";
    if let Some(group) = &file.group
        && file.parent().is_empty()
    {
        return Err((format!("a file of the group {group} needs a directory"), "write path: DIRECTORY/NAME"));
    }
    others.try_for_each(|other| match (&file.group, &other.group) {
        (Some(group), Some(same)) if group == same => {
            let is_together = other.parent() == file.parent();
            let elsewhere =
                || (format!("the group {group} has the directory {}", other.parent()), "all files of a group lie in one directory");
            if is_together { Ok(()) } else { Err(elsewhere()) }
        }
        (Some(group), _) if is_below(&other.path, file.parent()) => {
            Err((format!("{} lies in the directory of the group {group}", other.path), OWN))
        }
        (_, Some(group)) if is_below(&file.path, other.parent()) => {
            Err((format!("{} is the directory of the group {group}", other.parent()), OWN))
        }
        _ => Ok(()),
    })
}

/// Whether a path lies below a directory, at whatever depth.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}
