//! The conformance table names tests that exist.

use std::collections::HashMap;
use std::path::Path;

#[test]
fn every_test_that_the_conformance_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let mut sources = HashMap::new();
    let mut named = 0;
    for cell in table
        .split('`')
        .filter(|cell| cell.contains("::") && !cell.contains(' '))
    {
        let (module, test) = cell.rsplit_once("::").unwrap();
        if (module, test) == ("module", "test") {
            continue;
        }
        let path = match module.strip_suffix(".rs") {
            Some(_) if module.starts_with("tests/") => root.join(module),
            Some(_) if engine.join(module).exists() => engine.join(module),
            Some(_) => root.join("src/relay").join(module),
            None => engine
                .join("engine/tests")
                .join(module)
                .with_extension("rs"),
        };
        let source = sources
            .entry(path.clone())
            .or_insert_with(|| std::fs::read_to_string(&path).unwrap_or_default());
        assert!(source.contains(&format!("fn {test}(")), "{cell}");
        named += 1;
    }
    assert!(named > 60, "{named}");
    assert!(!table.contains("*shell*"), "a row without a test");
}
