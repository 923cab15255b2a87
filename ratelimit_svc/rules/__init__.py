"""Rules: which limit meets which descriptor.

```
files        a path → the bytes of its rule files               (only here is the disk read)
compose      bytes → nodes that know their line                 (only here is YAML parsed)
nodes        those nodes, and the document that collects what is wrong or odd
kinds        a node → a text, a number, a choice, or what is wrong with it
tables       every key: where, of which kind, whose, what for   (the rule language)
fields       a mapping → its values, by its table
limits, metadata, descriptors   mappings → limits, plain values, compiled nodes with their rules
load         files → a compiled RuleSet with its warnings, or all errors
match        a RuleSet and a descriptor → its rules             (pure, on the way of requests)
explain      the same, with every step in words; `words` has those of limits and rules
schema, page the tables → a JSON Schema, and the reference page
watch        a changed file → a new RuleSet; a bad one → an error, and the old rules stay
```
"""
