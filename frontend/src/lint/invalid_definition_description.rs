//! InvalidDefinitionDescription: comments above FROM and ARG that do not describe them. Experimental.

use super::{Rule, from_words, options::Options};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// `--call=targets` and `--call=outline` show the comment right above a stage or an argument as its description, when it
/// begins with the name. A comment that does not is shown nowhere; an empty line or comment below it sets it apart.
///
/// Bad:
/// ```text
/// # the version to build
/// ARG VERSION=1
/// ```
/// Good:
/// ```text
/// # VERSION is the version to build
/// ARG VERSION=1
/// ```
pub(super) const RULE: Rule = Rule {
    experimental: true,
    ..Rule::new(
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    )
};

pub(super) fn check(node: &Node) -> Option<Diagnostic> {
    let keyword = node.keyword.text.to_uppercase();
    let names: Vec<(String, _)> = match keyword.as_str() {
        "ARG" => {
            let name = |text: &str| text.split_once('=').map_or(text, |(name, _)| name).to_owned();
            node.args.iter().map(|word| (name(&word.text), word)).collect()
        }
        "FROM" => from_words(node)?.1.map(|(_, name)| (name.text.to_lowercase(), name)).into_iter().collect(),
        _ => return None,
    };
    let (first, word) = names.first()?;
    let above = node.comments.last().filter(|_| !node.comments_apart);
    let comment = above.filter(|c| Options::of_comments(std::slice::from_ref(c)).is_none())?;
    let described = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|(name, _)| name == described) {
        return None;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first.as_str() };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    Some(RULE.at(word.span, message))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_comment_begins_with_the_name() {
        let with = |text: &str| found(&format!("# check=experimental=all\n{text}"));
        let expected =
            "InvalidDefinitionDescription 3 Comment for ARG should follow the format: `# A <description>`";
        assert_eq!(with("# my A\nARG A\nFROM x"), [expected]);
        for good in
            ["# A is mine\nARG A", "# my A\n\nARG A", "# my A\n#\nARG A", "# B too\nARG A B=1", "ARG A"]
        {
            assert!(with(&format!("{good}\nFROM x")).is_empty(), "{good}");
        }
        assert_eq!(with("# Base\nFROM x AS base").len(), 1);
        assert!(with("# base of all\nFROM x AS Base\n").iter().all(|line| !line.contains("Comment")));
        assert!(found("# my A\nARG A\nFROM x").is_empty(), "an experimental rule is asked for");
    }
}
