//! One product file, parsed: the paths it names, its unsafe code and its modules, without its tests.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// What a file names, and in which line.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Paths as they are written, `a::b::c`; those of a grouped import one by one.
    pub(crate) paths: Vec<(usize, String)>,
    /// Imports: their path, and the name under which the file knows it.
    pub(crate) imports: Vec<(String, String)>,
    /// `pub use`: the same.
    pub(crate) exports: Vec<(String, String)>,
    /// Unsafe blocks, functions and implementations.
    pub(crate) unsafe_code: Vec<usize>,
    /// Child modules in files of their own.
    pub(crate) modules: Vec<String>,
    /// Items that the file defines at its top level.
    pub(crate) items: Vec<String>,
}

/// Parses a file; what is compiled for tests only is left out.
pub(crate) fn facts(text: &str) -> Facts {
    let file = syn::parse_file(text).expect("a product file is valid Rust");
    let mut facts = Facts::default();
    if file.attrs.iter().any(is_test_only) {
        return facts;
    }
    for item in file.items.iter().filter(|item| !is_test_item(item)) {
        match item {
            syn::Item::Mod(module) if module.content.is_none() => {
                facts.modules.push(module.ident.to_string());
            }
            syn::Item::Use(import) => {
                let mut flat = vec![];
                flatten("", &import.tree, &mut flat);
                let exported = !matches!(import.vis, syn::Visibility::Inherited);
                for (path, name) in flat {
                    if exported {
                        facts.exports.push((path.clone(), name.clone()));
                    }
                    facts.imports.push((path, name));
                }
            }
            other => facts.items.extend(name_of(other)),
        }
    }
    facts.visit_file(&file);
    facts
}

fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn flatten(prefix: &str, tree: &syn::UseTree, found: &mut Vec<(String, String)>) {
    let join = |name: &str| match prefix {
        "" => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    let last = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
    match tree {
        syn::UseTree::Path(path) => flatten(&join(&path.ident.to_string()), &path.tree, found),
        syn::UseTree::Name(name) if name.ident == "self" => {
            found.push((prefix.to_owned(), last(prefix)));
        }
        syn::UseTree::Name(name) => {
            found.push((join(&name.ident.to_string()), name.ident.to_string()));
        }
        syn::UseTree::Rename(name) => {
            let path = match name.ident == "self" {
                true => prefix.to_owned(),
                false => join(&name.ident.to_string()),
            };
            found.push((path, name.rename.to_string()));
        }
        syn::UseTree::Glob(_) => found.push((prefix.to_owned(), "*".into())),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                flatten(prefix, tree, found);
            }
        }
    }
}

/// Whether an attribute keeps code out of the product. Fuzz bodies are tests: they start the clock.
fn is_test_only(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let Ok(list) = attribute.meta.require_list() else {
        return false;
    };
    let mut condition = String::new();
    words(list.tokens.clone(), &mut |word| {
        condition = format!("{condition} {word}")
    });
    let mut words = condition.split_whitespace();
    match words.next() {
        Some("test" | "fuzzing") => true,
        Some("any") => words.all(|word| word == "test" || word == "fuzzing"),
        Some("all") => words.any(|word| word == "test"),
        _ => false,
    }
}

fn words(tokens: TokenStream, each: &mut impl FnMut(&str)) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => each(&ident.to_string()),
            TokenTree::Group(group) => words(group.stream(), each),
            _ => {}
        }
    }
}

fn is_test_item(item: &syn::Item) -> bool {
    let attributes: &[syn::Attribute] = match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(is_test_only)
}

impl<'ast> Visit<'ast> for Facts {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_item(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[syn::Attribute] = match item {
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_test_only) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !variant.attrs.iter().any(is_test_only) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !field.attrs.iter().any(is_test_only) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !field.attrs.iter().any(is_test_only) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !arm.attrs.iter().any(is_test_only) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        let mut flat = vec![];
        flatten("", &import.tree, &mut flat);
        let line = import.span().start().line;
        self.paths
            .extend(flat.into_iter().map(|(path, _)| (line, path)));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.paths
            .push((path.span().start().line, names.join("::")));
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::x)` imports nothing.
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_code.push(block.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.unsafe_code
            .extend(item.unsafety.as_ref().map(|token| token.span.start().line));
        visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.unsafe_code.extend(
            signature
                .unsafety
                .as_ref()
                .map(|token| token.span.start().line),
        );
        visit::visit_signature(self, signature);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "elapsed" {
            let line = call.method.span().start().line;
            self.paths
                .push((line, "std::time::Instant::elapsed".into()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let names: Vec<String> = call
            .path
            .segments
            .iter()
            .map(|s| s.ident.to_string())
            .collect();
        self.paths
            .push((call.path.span().start().line, names.join("::")));
        self.tokens(call.tokens.clone());
    }
}

impl Facts {
    /// The body of a macro call, which no grammar describes: words joined by `::` are paths.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = String::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if ident == "unsafe" {
                        self.unsafe_code.push(ident.span().start().line);
                    }
                    if colons == 2 && !path.is_empty() {
                        path = format!("{path}::{ident}");
                    } else {
                        self.end_of_path(line, &mut path);
                        (line, path) = (ident.span().start().line, ident.to_string());
                    }
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end_of_path(line, &mut path);
                    if group.delimiter() != Delimiter::None || colons == 0 {
                        self.tokens(group.stream());
                    }
                    colons = 0;
                }
                _ => {
                    self.end_of_path(line, &mut path);
                    colons = 0;
                }
            }
        }
        self.end_of_path(line, &mut path);
    }

    fn end_of_path(&mut self, line: usize, path: &mut String) {
        if !path.is_empty() {
            self.paths.push((line, std::mem::take(path)));
        }
    }
}
