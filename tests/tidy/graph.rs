//! Which file knows which: written paths are followed through imports and re-exports to the file that
//! defines their item.

use crate::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Re-exports followed one after the other, at most.
const MAX_HOPS: usize = 8;

/// All product files by the modules that they are.
pub(crate) struct Graph<'s> {
    sources: &'s [Source],
    by_module: HashMap<String, usize>,
}

impl<'s> Graph<'s> {
    pub(crate) fn new(sources: &'s [Source]) -> Self {
        let modules = sources.iter().enumerate().map(|(n, s)| (s.module(), n));
        Self {
            sources,
            by_module: modules.collect(),
        }
    }

    /// A path as the file wrote it, from its crate on; paths of other crates as they are, their
    /// imported names replaced. `None`: a local name.
    pub(crate) fn absolute(&self, source: &Source, path: &str) -> Option<String> {
        let (first, rest) = path.split_once("::").unwrap_or((path, ""));
        let join = |base: &str| match rest {
            "" => base.to_owned(),
            _ => format!("{base}::{rest}"),
        };
        let module = source.module();
        match first {
            "crate" => {
                let root = module.split("::").next().unwrap_or_default();
                Some(join(root))
            }
            "self" => Some(join(&module)),
            "super" => {
                let mut base = module.as_str();
                let mut rest = path;
                while let Some(after) = rest.strip_prefix("super") {
                    base = base.rsplit_once("::").map_or(base, |(parent, _)| parent);
                    rest = after.trim_start_matches("::");
                }
                Some(match rest {
                    "" => base.to_owned(),
                    _ => format!("{base}::{rest}"),
                })
            }
            _ => {
                let import = source.facts.imports.iter().find(|(_, name)| name == first);
                if let Some((import, _)) = import.filter(|(import, _)| import != first) {
                    // An import may begin with another import's name, but not with its own.
                    let base = match import.split("::").next() == Some(first) {
                        true => import.clone(),
                        false => self.absolute(source, import)?,
                    };
                    return Some(join(&base));
                }
                if source.facts.modules.iter().any(|child| child == first) {
                    return Some(format!("{module}::{path}"));
                }
                (path.contains("::") || import.is_some()).then(|| path.to_owned())
            }
        }
    }

    /// The file that defines what an absolute path names; a module by itself is nobody's item.
    pub(crate) fn owner(&self, absolute: &str) -> Option<&'s Source> {
        self.follow(absolute, MAX_HOPS)
    }

    fn follow(&self, absolute: &str, hops: usize) -> Option<&'s Source> {
        let mut module = absolute;
        loop {
            if let Some(file) = self.by_module.get(module) {
                let source = &self.sources[*file];
                let rest = absolute[module.len()..].trim_start_matches("::");
                let (item, rest) = rest.split_once("::").unwrap_or((rest, ""));
                if item.is_empty() {
                    return None;
                }
                let export = source.facts.exports.iter().find(|(_, name)| name == item);
                let Some((export, _)) = export.filter(|_| hops > 0) else {
                    return Some(source);
                };
                let onward = self.absolute(source, export)?;
                let onward = match rest {
                    "" => onward,
                    _ => format!("{onward}::{rest}"),
                };
                return self.follow(&onward, hops - 1).or(Some(source));
            }
            module = module.rsplit_once("::")?.0;
        }
    }

    /// Whom each file knows. A module and the parts below it are one, so they may know each other.
    fn edges(&self) -> BTreeMap<&'s str, BTreeSet<&'s str>> {
        let mut edges = BTreeMap::new();
        for source in self.sources {
            let known: &mut BTreeSet<&str> = edges.entry(source.path.as_str()).or_default();
            let module = source.module();
            for (_, path) in &source.facts.paths {
                let absolute = self.absolute(source, path);
                let Some(owner) = absolute.and_then(|path| self.owner(&path)) else {
                    continue;
                };
                let other = owner.module();
                if !is_part(&module, &other) && !is_part(&other, &module) {
                    known.insert(&owner.path);
                }
            }
        }
        edges
    }

    /// Each circle once, as the files that it passes.
    pub(crate) fn circles(&self) -> Vec<Vec<&'s str>> {
        let edges = self.edges();
        let mut done = BTreeSet::new();
        let mut circles = vec![];
        for start in edges.keys().copied() {
            let mut way = vec![];
            visit(start, &edges, &mut way, &mut done, &mut circles);
        }
        circles
    }
}

fn is_part(whole: &str, part: &str) -> bool {
    part == whole || part.starts_with(&format!("{whole}::"))
}

fn visit<'s>(
    file: &'s str,
    edges: &BTreeMap<&'s str, BTreeSet<&'s str>>,
    way: &mut Vec<&'s str>,
    done: &mut BTreeSet<&'s str>,
    circles: &mut Vec<Vec<&'s str>>,
) {
    if let Some(start) = way.iter().position(|earlier| *earlier == file) {
        circles.push(way[start..].to_vec());
        return;
    }
    if done.contains(file) {
        return;
    }
    way.push(file);
    for next in edges.get(file).into_iter().flatten() {
        visit(next, edges, way, done, circles);
    }
    way.pop();
    done.insert(file);
}
