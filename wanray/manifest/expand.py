"""Multiplies resolved rows: once per seed, and once per combination of the sweep."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.settings import LABEL


def expand(table: pa.Table, combinations: pa.Table) -> pa.Table:
    """One row per seed of each row (column `seeds`, null: its one `seed`) and combination, in this order.

    A combination's columns replace the row's. The ids of what was multiplied say what varies, such as
    `cat#seed=3,steps=20`.
    """
    rows, seed_labels = expand_seeds(table, swept="seed" in combinations.column_names)
    parents = np.repeat(np.arange(len(rows)), len(combinations))
    choices = combinations.take(pa.array(np.tile(np.arange(len(combinations)), len(rows))))
    expanded = rows.take(pa.array(parents))
    for name in choices.column_names:
        if name != LABEL:
            expanded = replace_column(expanded, name, flat(choices[name]))
    ids = labelled(flat(expanded["id"]), seed_labels.take(pa.array(parents)), flat(choices[LABEL]))
    return replace_column(expanded, "id", ids)


def expand_seeds(table: pa.Table, *, swept: bool) -> tuple[pa.Table, pa.Array]:
    """One row per seed, without the column `seeds`; and its label (empty: it has but one)."""
    seeds, rows = flat(table["seeds"]), table.drop(["seeds"])
    if swept or seeds.null_count == len(seeds):
        return rows, pa.repeat("", len(rows))
    counts = pc.list_value_length(seeds).fill_null(1)
    parents = pa.array(np.repeat(np.arange(len(rows)), counts.to_numpy()))
    rows = rows.take(parents)
    listed = pc.is_valid(seeds).take(parents)
    seed = pc.replace_with_mask(flat(rows["seed"]), listed, pc.list_flatten(seeds))
    labels = pc.binary_join_element_wise("seed=", seed.cast(pa.string()), "")
    several = pc.greater(counts, 1).take(parents)
    return replace_column(rows, "seed", seed), pc.if_else(several, labels.fill_null(""), "")


def labelled(ids: pa.Array, one: pa.Array, other: pa.Array) -> pa.Array:
    """`ids` followed by # and those of their two labels that are not empty."""
    both = pc.and_(pc.not_equal(one, ""), pc.not_equal(other, ""))
    label = pc.binary_join_element_wise(one, pc.if_else(both, ",", ""), other, "")
    return pc.if_else(pc.equal(label, ""), ids, pc.binary_join_element_wise(ids, label, "#"))


def replace_column(table: pa.Table, name: str, array: pa.Array) -> pa.Table:
    """`table` with `array` in the place of column `name`."""
    return table.set_column(table.column_names.index(name), name, array)
