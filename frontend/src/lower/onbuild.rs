//! ONBUILD triggers: from the texts that a base holds to commands of the stage that builds on it.

use boxwright_solver::Span;

use super::stages::{Command, Graph, Held, Node};
use crate::ast::Kind;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::syntax::{Lexer, trigger};

/// The triggers that a stage defines for those `FROM` it.
pub(super) fn of_stage(node: &Node<'_>) -> Vec<String> {
    let texts = node.commands.iter().filter_map(|command| match &command.instruction.kind {
        Kind::Onbuild(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

/// The command that a trigger's text is. `span` is that of the FROM that pulls it in. Triggers are read with the
/// default escape, whatever the Dockerfile has.
pub(super) fn command<'a>(graph: &mut Graph<'a>, text: &str, span: Span) -> Result<Command<'a>, Diagnostics> {
    let here = |errors: Diagnostics| -> Diagnostics {
        errors.into_iter().map(|error| placed(error, text, span)).collect()
    };
    let mut instruction = trigger(text).map_err(here)?;
    instruction.span = span;
    if let Kind::Run(run) = &mut instruction.kind {
        run.mounts.iter_mut().for_each(|mount| mount.span = span);
    }
    let sources =
        graph.sources_of(&instruction, Lexer::new('\\')).map_err(|error| vec![placed(*error, text, span)])?;
    for source in sources.iter().flatten() {
        let node = &mut graph.nodes[*source];
        if node.given {
            node.span = span;
        }
    }
    Ok(Command { instruction: Held::Trigger(Box::new(instruction)), sources })
}

/// A diagnostic about a trigger, which has no place in the Dockerfile but for the FROM line.
pub(super) fn placed(error: Diagnostic, text: &str, span: Span) -> Diagnostic {
    let first = text.lines().next().unwrap_or_default();
    Diagnostic { span, ..error }.hint(format!("in the ONBUILD trigger `{first}` of the base"))
}
