r"""
Can the audit run where the data live?
======================================

The only thing an audit reads is a table of counts, so the rows can stay in the database. Here the
grouping runs inside DuckDB; the same call takes polars, Dask and PySpark frames, and sums of counts
from several sites.
"""

import duckdb

from causalfair.datasets import make_weak_proxies
from causalfair.fairness import ProxyFairness, count_tensor

people, truth = make_weak_proxies(500_000, random_state=0)
warehouse = duckdb.connect()
warehouse.register("decisions", people)
table = warehouse.sql("select y_pred, y_true, proxy_1, proxy_2, proxy_3 from decisions")

audit = ProxyFairness(random_state=0).fit(
    table, "y_pred", y_true="y_true", proxies=["proxy_1", "proxy_2", "proxy_3"]
)
audit

# %%
# Two sites that may not share rows share counts. Their sum gives the same bits.
proxies = ["proxy_1", "proxy_2", "proxy_3"]
north, south = people[:200_000], people[200_000:]
shares = [
    count_tensor(site[proxies], site["y_pred"], site["y_true"], n_levels=2)
    for site in (north, south)
]
together = ProxyFairness.from_counts(sum(shares), random_state=0)
print("same table:", bool((together.joint_ == audit.joint_).all()))
print(f"truth {truth['demographic_parity']:.3f}, audit {audit.estimates_.estimate[0]:.3f}")
warehouse.close()
