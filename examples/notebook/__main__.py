"""`python -m examples.notebook`: all cells, one after the other."""

import sys

import click
from pyspark.errors import PySparkException

from batch.session import session
from examples.notebook import cells
from logstore.spark import reason, register


@click.command()
@click.option("--bootstrap", required=True, metavar="HOST:PORT", help="Kafka.")
@click.option("--table", required=True, metavar="NAME")
@click.option("--storage", metavar="URL", help="Where snapshots and archive lie.  [default: where the store says]")
@click.option("--as-of", metavar="TOKEN", help="Also compare with this position.")
def main(bootstrap: str, table: str, storage: str | None, as_of: str | None) -> None:
    """What a table holds, what changed in it by the hour, and what it held at a position."""
    spark = session()
    register(spark)
    place = cells.TablePlace(bootstrap, table, storage)
    try:
        print("What it holds, by partition:")
        cells.holdings(spark, place).show(truncate=False)
        print("Changes per hour:")
        cells.changes_per_hour(spark, place).show(truncate=False)
        if as_of is not None:
            print("What became of the rows since the position:")
            cells.since(spark, place, as_of).show(truncate=False)
    except PySparkException as error:
        sys.exit(reason(error) or str(error))
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
