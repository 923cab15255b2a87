"""Rules: which limit meets which descriptor.

```
files      a path → the bytes of its rule files                 (only here is the disk read)
compose    bytes → nodes that know their line                   (only here is YAML parsed)
nodes      those nodes, and the document that collects what is wrong
kinds      a node → a text, a number, a choice, or what is wrong with it
load       nodes → a compiled RuleSet, by tables of keys        (the rule language)
match      a RuleSet and a descriptor → its rule                (pure, on the way of requests)
explain    the same, with every step in words
watch      a changed file → a new RuleSet; a bad one → an error, and the old rules stay
```
"""
