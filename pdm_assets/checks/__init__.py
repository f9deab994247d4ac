"""What is checked of the assets, beside what the raw tables say of themselves."""

from pdm_assets.checks import features, monitoring, scoring

CHECKS = [
    features.no_label_before_its_horizon_is_over,
    features.later_observations_are_newer,
    features.later_labels_are_newer,
    scoring.yesterday_is_scored,
    scoring.every_observation_has_a_score,
    monitoring.no_lasting_drift,
    monitoring.performance_holds,
]
