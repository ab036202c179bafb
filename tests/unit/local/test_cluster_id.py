"""Cluster ids of Apache Kafka."""

from pipeline.local.kafka_apache import new_cluster_id


def test_never_taken_for_an_option() -> None:
    """One random id in 64 begins with a dash, and Kafka's tools refuse it: the broker would not start."""
    ids = {new_cluster_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert not any(one.startswith("-") for one in ids)
    assert {len(one) for one in ids} == {22}
