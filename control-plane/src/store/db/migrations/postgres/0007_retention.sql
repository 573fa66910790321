-- Up to which instant what is too old counts as such. It follows the wall clock, and never faster than time passes: so a clock that
-- is set wrong for an hour removes nothing that is kept for a year.
CREATE TABLE retention (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    horizon BIGINT NOT NULL
);

-- A database that has a history goes on where that ends; a new one begins by its first clock.
INSERT INTO retention SELECT 1, changed_at FROM changes ORDER BY revision DESC LIMIT 1;
