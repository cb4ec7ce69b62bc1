"""The statistics of qkscope.study against published numbers and against scipy,
called here in another way."""

import math
import unittest

import scipy.stats

from qkscope.study import statistics


def rights(values):
    return {str(i): [value] for i, value in enumerate(values)}


class WilsonTest(unittest.TestCase):

    def test_published(self):
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        for right, items, low, high in [(81, 263, 0.2553, 0.3662),
                                        (15, 148, 0.0624, 0.1605),
                                        (0, 20, 0.0, 0.1611),
                                        (1, 29, 0.0061, 0.1718)]:
            got = statistics.wilson(right, items)
            for value, wanted in zip(got, (low, high)):
                self.assertLessEqual(abs(value - wanted), 5e-5)

    def test_by_scipy(self):
        for right, items in [(0, 7), (3, 7), (7, 7), (62, 100), (999, 1000)]:
            wanted = scipy.stats.binomtest(right, items).proportion_ci(
                method="wilson")
            got = statistics.wilson(right, items)
            self.assertLessEqual(abs(got[0] - wanted.low), 1e-12)
            self.assertLessEqual(abs(got[1] - wanted.high), 1e-12)

    def test_nothing(self):
        self.assertTrue(all(map(math.isnan, statistics.wilson(0, 0))))

    def test_rounds_do_not_narrow_the_interval(self):
        once = statistics.accuracy({"a": [True], "b": [False]})
        thrice = statistics.accuracy({"a": [True] * 3, "b": [False] * 3})
        self.assertEqual(once, thrice)
        self.assertEqual(statistics.accuracy({"a": [True, False]}).share, 0.5)


class McNemarTest(unittest.TestCase):

    def test_by_the_binomial_test(self):
        for lost, won, both, neither in [(10, 0, 0, 0), (7, 2, 50, 41),
                                         (1, 1, 0, 0), (30, 55, 4, 11)]:
            first = rights([True] * lost + [False] * won + [True] * both
                           + [False] * neither)
            second = rights([False] * lost + [True] * won + [True] * both
                            + [False] * neither)
            got = statistics.mcnemar(first, second)
            self.assertEqual((got.lost, got.won, got.both, got.neither),
                             (lost, won, both, neither))
            wanted = scipy.stats.binomtest(lost, lost + won).pvalue
            self.assertLessEqual(abs(got.p - wanted), 1e-12)

    def test_published(self):
        # Agresti, Categorical Data Analysis (2002), table 10.1: 150 and 86
        # differ; z^2 = 17.36, so p = 3.1e-5 by the normal distribution.
        first = rights([True] * 150 + [False] * 86)
        second = rights([False] * 150 + [True] * 86)
        self.assertLess(abs(statistics.mcnemar(first, second).p - 3.7e-5),
                        1e-5)

    def test_equal_arms(self):
        same = rights([True, False, True])
        self.assertEqual(statistics.mcnemar(same, same).p, 1)

    def test_only_items_that_both_have(self):
        got = statistics.mcnemar({"a": [True], "b": [True]}, {"a": [False]})
        self.assertEqual((got.lost, got.both), (1, 0))

    def test_most_rounds_decide(self):
        got = statistics.mcnemar({"a": [True, True, False]},
                                 {"a": [True, False, False]})
        self.assertEqual(got.lost, 1)

    def test_holm_by_hand(self):
        def test(p):
            return statistics.McNemar(0, 0, 0, 0, p)
        got = [t.p_holm for t in statistics.holm(map(
            test, [0.01, 0.04, 0.03, 0.005]))]
        # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, never falling.
        for value, wanted in zip(got, [0.03, 0.06, 0.06, 0.02]):
            self.assertLessEqual(abs(value - wanted), 1e-12)
        self.assertEqual(statistics.holm([]), [])


class PerplexityTest(unittest.TestCase):

    def test_values(self):
        self.assertLessEqual(abs(statistics.perplexity(-math.log(8)) - 8),
                             1e-12)
        self.assertIsNone(statistics.perplexity(None))
        self.assertIsNone(statistics.perplexity(math.nan))
        self.assertTrue(math.isfinite(statistics.perplexity(-1e9)))

    def test_means(self):
        self.assertLessEqual(
            abs(statistics.geometric_mean([2, 8, None]) - 4), 1e-12)
        self.assertIsNone(statistics.geometric_mean([None]))
        self.assertEqual(statistics.mean([1, None, math.nan, 3]), 2)


if __name__ == "__main__":
    unittest.main()
