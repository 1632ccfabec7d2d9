"""Data source `logstore` of every Spark session: Spark looks for packages whose names begin with `pyspark_`."""

from typing import TYPE_CHECKING

from pyspark.sql.datasource import DataSource

from logstore.extras import missing
from logstore.model.errors import SetupError

if TYPE_CHECKING:
    from batch.datasource.source import LogstoreSource as DefaultSource
else:
    try:
        from batch.datasource.source import LogstoreSource as DefaultSource
        from batch.session import pickle_by_value
    except ModuleNotFoundError as error:  # an import that fails would take all other sources from the session
        lacking = missing(error, "batch")
        if lacking is None:
            raise
        said = str(lacking)

        class DefaultSource(DataSource):
            """Data source that says what is not installed, when it is used."""

            @classmethod
            def name(cls):
                """Name of the format."""
                return "logstore"

            def schema(self):
                """Raise what is not installed."""
                raise SetupError(said)
    else:
        pickle_by_value()  # executors have `logstore` alone

__all__ = ["DefaultSource"]
